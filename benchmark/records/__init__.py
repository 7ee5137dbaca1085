"""The run directory: cells, their journals, what proves them whole, and which measurement stands for one."""
