#pragma once
// Memory of the host: what this process may still take, and what it has.

#include <cstddef>
#include <string>

namespace colonnade {

/// Bytes of host memory that this process may still take: the least of the kernel's estimate, what the control groups
/// (v1 or v2) leave, and what the limit of address space leaves. The page cache of a group counts as free.
size_t available_memory();

/// Bytes of address space that the limit (`ulimit -v`) leaves this process; SIZE_MAX without a limit.
size_t available_address_space();

/// Whether the system would give the process `bytes` more of address space now. It tries.
bool has_address_space(size_t bytes);

/// What the process has and may have, for a message: "1.2 GiB in use, address space 3.9 of 4 GiB (ulimit -v)".
/// Allocates nothing but the text.
std::string memory_in_use();

}  // namespace colonnade
