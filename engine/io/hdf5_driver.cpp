// A virtual file driver of the HDF5 library: its reads and writes go through file_system(), as all others do. It does
// what the library's own driver "sec2" does, so that files have the same bytes, and reports errors by their system
// text.

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "engine/io/file_system.h"
#include "engine/io/hdf5_library.h"
#include "engine/io/system_call.h"
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

namespace colonnade::hdf5 {
namespace {

bool failed = false;  // guarded by the library's lock

struct DriverFile {
    H5FD_t library;  // must come first: the library extends this struct by its own fields
    FileDescriptor fd;
    haddr_t allocated, size;
};

DriverFile& of(H5FD_t* file) {
    return *reinterpret_cast<DriverFile*>(file);
}
const DriverFile& of(const H5FD_t* file) {
    return *reinterpret_cast<const DriverFile*>(file);
}

/// Records a failed system call; returns what a callback then returns.
herr_t system_failure(hid_t minor) {
    failed = true;
    H5Epush2(H5E_DEFAULT, __FILE__, "driver", __LINE__, H5E_ERR_CLS, H5E_IO, minor, "%s", std::strerror(errno));
    return -1;
}

H5FD_t* open_file(const char* name, unsigned flags, hid_t, haddr_t) {
    const int how = (flags & H5F_ACC_RDWR ? O_RDWR : O_RDONLY) | (flags & H5F_ACC_CREAT ? O_CREAT : 0) |
                    (flags & H5F_ACC_TRUNC ? O_TRUNC : 0) | (flags & H5F_ACC_EXCL ? O_EXCL : 0);
    FileDescriptor fd(uninterrupted([&] { return file_system().open(name, how); }));
    struct stat info {};
    if (fd < 0 || ::fstat(fd, &info) != 0) {
        system_failure(H5E_CANTOPENFILE);
        return nullptr;
    }
    return &(new DriverFile{{}, std::move(fd), 0, static_cast<haddr_t>(info.st_size)})->library;
}

herr_t close_file(H5FD_t* file) {
    const int result = file_system().close(of(file).fd.release());
    const bool closed = result == 0 || errno == EINTR;  // Linux has released the descriptor even if interrupted
    delete &of(file);
    return closed ? 0 : system_failure(H5E_CANTCLOSEFILE);
}

herr_t read_file(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t bytes, void* into) {
    for (char* next = static_cast<char*>(into); bytes > 0;) {
        const ssize_t got =
            uninterrupted([&] { return file_system().pread(of(file).fd, next, bytes, static_cast<off_t>(at)); });
        if (got < 0) return system_failure(H5E_READERROR);
        if (got == 0) {  // allocated, but never written
            std::memset(next, 0, bytes);
            return 0;
        }
        next += got;
        at += static_cast<haddr_t>(got);
        bytes -= static_cast<size_t>(got);
    }
    return 0;
}

herr_t write_file(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t bytes, const void* data) {
    for (const char* next = static_cast<const char*>(data); bytes > 0;) {
        const ssize_t written =
            uninterrupted([&] { return file_system().pwrite(of(file).fd, next, bytes, static_cast<off_t>(at)); });
        if (written < 0) return system_failure(H5E_WRITEERROR);
        next += written;
        at += static_cast<haddr_t>(written);
        bytes -= static_cast<size_t>(written);
        of(file).size = std::max(of(file).size, at);
    }
    return 0;
}

/// Makes the file as long as what is allocated: the library reserves places that it does not write.
herr_t truncate_file(H5FD_t* file, hid_t, hbool_t) {
    DriverFile& f = of(file);
    if (f.allocated == f.size) return 0;
    if (uninterrupted([&] { return file_system().ftruncate(f.fd, static_cast<off_t>(f.allocated)); }) != 0)
        return system_failure(H5E_SEEKERROR);
    f.size = f.allocated;
    return 0;
}

herr_t query_features(const H5FD_t*, unsigned long* flags) {
    if (flags)
        *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
                 H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}

H5FD_class_t driver_class() {
    H5FD_class_t c{};
#if H5_VERSION_GE(1, 13, 0)
    c.version = H5FD_CLASS_VERSION;
    c.value = static_cast<H5FD_class_value_t>(512);  // from here on, values are free for applications
#endif
    c.name = "colonnade";
    c.maxaddr = static_cast<haddr_t>(std::numeric_limits<off_t>::max());
    c.fc_degree = H5F_CLOSE_WEAK;
    c.open = open_file;
    c.close = close_file;
    c.query = query_features;
    c.get_eoa = [](const H5FD_t* file, H5FD_mem_t) { return of(file).allocated; };
    c.set_eoa = [](H5FD_t* file, H5FD_mem_t, haddr_t end) -> herr_t {
        of(file).allocated = end;
        return 0;
    };
    c.get_eof = [](const H5FD_t* file, H5FD_mem_t) { return of(file).size; };
    c.read = read_file;
    c.write = write_file;
    c.truncate = truncate_file;
    // No locks: a file under its final name is never written, and a temporary one has one writer.
    c.lock = [](H5FD_t*, hbool_t) -> herr_t { return 0; };
    c.unlock = [](H5FD_t*) -> herr_t { return 0; };
    constexpr H5FD_mem_t places[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(places), std::end(places), c.fl_map);
    return c;
}

}  // namespace

hid_t driver() {
    static const H5FD_class_t c = driver_class();
    static const hid_t id = H5FDregister(&c);
    require(id >= 0, "the HDF5 library does not take a driver");
    return id;
}

bool system_failed() {
    return failed;
}

void forget_failures() {
    failed = false;
}

}  // namespace colonnade::hdf5
