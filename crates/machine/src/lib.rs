//! A whole bare machine: processors, memory and board, interleaved in simulated time.
