"""Jobs: who supervises them, where they run, what one does, its checkpoints, and how long all will take."""
