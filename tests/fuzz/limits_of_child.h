#pragma once
// Limits on a process that reads hostile files: seconds for each input, and memory beyond what the process has.

namespace colonnade {

bool under_sanitizer();
/// From now on, memory beyond 256 MB more than now is refused (std::bad_alloc), or, under a sanitizer, ends the process
/// with a line that says so.
void limit_memory();
/// Begins the time of an input: SIGPROF ends the process after 10 seconds of its processor time (60 under a sanitizer),
/// so that a busy machine does no harm, or SIGALRM after two minutes.
void begin_time();
void end_time();

}  // namespace colonnade
