"""How a plan becomes motion: history, chunk, safety, worker, and the controller that ticks them. No torch, no ROS."""
