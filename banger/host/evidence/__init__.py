"""Evidence of VMs that did not boot or ended by themselves."""
