#include "engine/device/error.h"

#include <filesystem>
#include <new>
#include <system_error>

#include "engine/device/host_memory.h"

namespace colonnade {

Error error_in_flight() {
    try {
        throw;
    } catch (const Error& e) {
        return e;
    } catch (const std::bad_alloc&) {
        return Error(Exit::memory, "out of memory: " + memory_in_use());
    } catch (const std::system_error& e) {
        if (e.code() == std::errc::not_enough_memory)
            return Error(Exit::memory, fmt::format("out of memory: {}; {}", e.what(), memory_in_use()));
        if (e.code() == std::errc::resource_unavailable_try_again)
            return Error(Exit::memory, fmt::format("cannot start a thread: {}; {}", e.what(), memory_in_use()));
        // Such as a name that is too long, or links in a circle.
        if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&e))
            return Error(Exit::storage, fmt::format("{}: {}", file->path1().string(), e.code().message()));
        return Error(Exit::internal, fmt::format("internal: {}", e.what()));
    } catch (const std::exception& e) {
        return Error(Exit::internal, fmt::format("internal: {}", e.what()));
    }
}

}  // namespace colonnade
