#include "engine/io/hdf5_library.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "engine/io/limits.h"
#include "engine/io/system_call.h"

namespace colonnade::hdf5 {
namespace {

std::recursive_mutex& library_mutex() {
    static std::recursive_mutex mutex;
    return mutex;
}

Handle float_type(size_t exponent_bits, size_t mantissa_bits) {
    Handle type(H5Tcopy(H5T_IEEE_F32LE));
    H5Tset_fields(type, 15, mantissa_bits, exponent_bits, 0, mantissa_bits);
    H5Tset_ebias(type, (size_t{1} << (exponent_bits - 1)) - 1);
    H5Tset_precision(type, 16);
    H5Tset_size(type, 2);
    return type;
}

}  // namespace

/// Sessions of this thread, one within another.
static thread_local int open_sessions = 0;

/// Without memory for a handle, the library ends the process by exit(-1).
static void explain_exit() {
    if (open_sessions > 0) end_without_memory("the HDF5 library");
}

static struct sigaction before_session;

/// Without memory for its context, the library reads through a null pointer. Other faults are not ours to explain.
static void explain_fault(int signal) {
    if (open_sessions > 0 && errno == ENOMEM) end_without_memory("the HDF5 library");
    sigaction(signal, &before_session, nullptr);  // the instruction runs again
}

void explain_nothing() {
    open_sessions = std::numeric_limits<int>::min();
}

/// No exit handler: after a failed write it may loop forever. No plugins: they are foreign code.
static bool initialise() {
    struct sigaction action {};
    action.sa_handler = explain_fault;
    return sigaction(SIGSEGV, &action, &before_session) == 0 && std::atexit(explain_exit) == 0 &&
           H5dont_atexit() >= 0 && H5PLset_loading_state(0) >= 0 && H5open() >= 0;
}

/// Without memory the library crashes while it is initialised, so a child process does the same first.
static bool can_be_initialised() {
    const pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) {
        const rlimit no_core{0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        alarm(limits::probe_seconds);
        explain_nothing();
        _exit(initialise() ? 0 : 1);
    }
    int status = 0;
    return uninterrupted([&] { return waitpid(child, &status, 0); }) == child && status == 0;
}

Session::Session() : lock_(library_mutex()) {
    ++open_sessions;
    static const bool ready = can_be_initialised() && initialise();
    if (!ready) end_without_memory("the HDF5 library, which cannot be initialised");
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    forget_failures();
}

Session::~Session() {
    --open_sessions;
}

std::string last_error() {
    std::string text = "unknown error";
    const auto take_first = [](unsigned n, const H5E_error2_t* error, void* into) -> herr_t {
        if (n == 0 && error->desc) *static_cast<std::string*>(into) = error->desc;
        return 0;
    };
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &text);
    return text;
}

Handle type_of(DType dtype) {
    switch (dtype) {
        case DType::u8:
            return Handle(H5Tcopy(H5T_STD_U8LE));
        case DType::i16:
            return Handle(H5Tcopy(H5T_STD_I16LE));
        case DType::i32:
            return Handle(H5Tcopy(H5T_STD_I32LE));
        case DType::i64:
            return Handle(H5Tcopy(H5T_STD_I64LE));
        case DType::f16:
            return float_type(5, 10);
        case DType::bf16:
            return float_type(8, 7);
        case DType::f32:
            return Handle(H5Tcopy(H5T_IEEE_F32LE));
        case DType::f64:
            return Handle(H5Tcopy(H5T_IEEE_F64LE));
    }
    return Handle();
}

Handle file_access() {
    Handle access(H5Pcreate(H5P_FILE_ACCESS));
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    // This format has checksums on its metadata.
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_driver(access, driver(), nullptr);
    return access;
}

std::vector<std::string> prefixes(const std::string& name) {
    std::vector<std::string> all;
    for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1))
        all.push_back(name.substr(0, slash));
    all.push_back(name);
    return all;
}

}  // namespace colonnade::hdf5
