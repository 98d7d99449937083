"""What is asked of the machine: CPU, threads, memory, linker, target, clocks."""
