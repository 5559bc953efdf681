"""Scripts that run inside `.venv-oracle`, in a process of their own. They import TensorFlow and Waymo's package; nothing of the
product imports them, and they import nothing of the product. Each takes input and output paths as its two arguments.
"""
