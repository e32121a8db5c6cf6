"""What runs in every training process. Knows no storage, no hub, no SwanLab: it reads a folder and appends events."""
