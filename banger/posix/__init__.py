"""What every adapter needs of the operating system: files that last, small reads, helper programs, ELF files."""
