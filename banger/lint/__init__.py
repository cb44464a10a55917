"""What an image would do in a VM, told beforehand: is there an init, a shell, a libc, and can the kernel carry them?"""
