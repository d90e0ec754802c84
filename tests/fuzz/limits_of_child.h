#pragma once
// Limits on a process that reads hostile files: seconds for each input, and memory beyond what the process has.

namespace colonnade {

bool under_sanitizer();
/// From now on, memory beyond 256 MB more than now is refused (std::bad_alloc), or, under a sanitizer, ends the process
/// with a line that says so.
void limit_memory();
/// Begins, or with 0 ends, the time of an input: SIGALRM after so many seconds.
unsigned seconds_of_input();

}  // namespace colonnade
