#pragma once
// The HDF5 C library as Hdf5Writer and Hdf5Reader use it: lock, handles, error text and dtypes. Other code should
// include engine/io/hdf5.h.

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/device/tensor.h"

namespace colonnade::hdf5 {

/// In a child process that tries something: a fault or an exit of the library is not explained, only the status tells.
void explain_nothing();

/// Must exist during every use of the library. Takes the lock (the library may not be thread-safe) and turns off error
/// printing, which is a setting per thread. If the library ends the process meanwhile, it is for lack of memory: then
/// that is said, with Exit::memory.
class Session {
  public:
    Session();
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

  private:
    std::lock_guard<std::recursive_mutex> lock_;
};

/// Owns any identifier of the library.
class Handle {
  public:
    explicit Handle(hid_t id = H5I_INVALID_HID) : id_(id) {}
    Handle(Handle&& other) noexcept : id_(other.release()) {}
    Handle& operator=(Handle&& other) noexcept {
        std::swap(id_, other.id_);
        return *this;
    }
    ~Handle() {
        if (id_ >= 0) H5Idec_ref(id_);
    }
    operator hid_t() const { return id_; }
    hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

  private:
    hid_t id_;
};

/// The innermost message of the library's error stack; for a failed system call, the system's error text.
std::string last_error();

/// The driver by which the library reads and writes files (engine/io/hdf5_driver.cpp).
hid_t driver();
/// Whether a system call on a file has failed in this Session: then an error is not the file's fault.
bool system_failed();
void forget_failures();

Handle type_of(DType dtype);
/// Properties with which files are opened and created.
Handle file_access();

/// "a/b/c" -> "a", "a/b", "a/b/c"
std::vector<std::string> prefixes(const std::string& name);

}  // namespace colonnade::hdf5
