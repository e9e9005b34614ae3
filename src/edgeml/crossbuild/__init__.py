"""llama.cpp compiled here for another processor: the compiler, the build, what is in the libraries, the wheel."""
