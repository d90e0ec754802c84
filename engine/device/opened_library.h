#pragma once
// Shared libraries that are opened when they are first needed, so that a program starts without them. The portable build
// (docs/packages.md) opens cuBLASLt, NCCL, Open MPI and libcurl so; every other build links them.
//
// A header opened_<library>.h has one line for each function that is called:
//
//     inline OpenedLibrary& nccl_library() { ... }
//     COLONNADE_OPENED(nccl_library, ncclGroupStart);
//
// The line makes an object of that name in namespace colonnade, with the type that the library's own header declares.
// Inside the namespace it comes before the function, so that calls are written as ever: ncclGroupStart().

#include <atomic>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace colonnade {

class OpenedLibrary {
  public:
    struct Source {
        std::string name;      ///< "Open MPI", for messages
        std::string variable;  ///< environment variable with the path of the file; if set, nothing else is tried
        /// Tried in this order: names for the loader, or paths, which may have * and begin with $VARIABLE. A path whose
        /// variable is not set is left out.
        std::vector<std::string> files;
        std::string remedy;  ///< what the user can do without it: "install the package openmpi-bin"
        /// Other libraries with the same purpose that the program cannot use: file, name. An error names them if they
        /// are here.
        std::vector<std::pair<std::string, std::string>> unusable{};
        bool global = false;  ///< its plug-ins use its functions
    };
    explicit OpenedLibrary(Source source) : source_(std::move(source)) {}
    OpenedLibrary(const OpenedLibrary&) = delete;
    OpenedLibrary& operator=(const OpenedLibrary&) = delete;

    /// Opens it, at the first call. False if no file can be opened.
    bool opens();
    /// A function or datum of it. Throws Exit::config, with all names that were tried and the remedy, if the library
    /// cannot be opened or has no such symbol.
    void* symbol(const char* name);
    /// The file that was opened, with links resolved; empty if there is none.
    std::string file() { return opens() ? file_ : ""; }

  private:
    void open();

    const Source source_;
    std::once_flag once_;
    void* handle_ = nullptr;
    std::string file_{};
    std::string tried_{};  ///< "libmpi.so.40, /opt/libmpi.so.40 (wrong ELF class)"
};

template <typename Function>
class OpenedFunction;

template <typename Result, typename... Args>
class OpenedFunction<Result(Args...)> {
  public:
    constexpr OpenedFunction(OpenedLibrary& (*library)(), const char* name) : library_(library), name_(name) {}
    Result operator()(Args... args) const { return reinterpret_cast<Result (*)(Args...)>(address())(args...); }

  protected:
    void* address() const {
        void* known = address_.load(std::memory_order_acquire);
        if (!known) address_.store(known = library_().symbol(name_), std::memory_order_release);
        return known;
    }

  private:
    OpenedLibrary& (*library_)();
    const char* name_;
    mutable std::atomic<void*> address_ = nullptr;
};

/// A function of C with more arguments than it names: curl_easy_setopt(curl, option, ...).
template <typename Result, typename... Args>
class OpenedFunction<Result(Args..., ...)> : OpenedFunction<Result(Args...)> {
  public:
    using OpenedFunction<Result(Args...)>::OpenedFunction;
    template <typename... More>
    Result operator()(Args... args, More... more) const {
        return reinterpret_cast<Result (*)(Args..., ...)>(this->address())(args..., more...);
    }
};

#define COLONNADE_OPENED(library, function) \
    inline const OpenedFunction<decltype(::function)> function(library, #function)

/// Name and file of every library that has been opened so far.
struct OpenedFile {
    std::string name, file;
};
std::vector<OpenedFile> opened_files();

}  // namespace colonnade
