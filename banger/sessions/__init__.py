"""Services for commands and files in running VMs, used by the API's frame streams and by other front ends."""
