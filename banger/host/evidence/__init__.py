"""Evidence of VMs that did not come up or ended by themselves."""
