"""What an engine has served: its histogram, the files of it, and shapes made of them."""
