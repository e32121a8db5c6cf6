"""Reports to SwanLab. Its SDK runs in a process of its own, and no fault of it becomes one of the run's."""
