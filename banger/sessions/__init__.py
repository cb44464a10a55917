"""Commands and files in running VMs, for whoever serves a caller: the API's frames today, other front ends next."""
