"""The log of a run: read from its pods while they exist, else from storage; which lines are shown, and in what order.

How a run is doing does not belong here (`runs`); neither does how logs get to storage, which the runtime does.
"""
