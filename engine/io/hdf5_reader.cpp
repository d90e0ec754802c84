#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>

#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/hdf5_library.h"
#include "engine/io/limits.h"
#include "engine/io/system_call.h"

namespace colonnade {

using hdf5::Handle;
using hdf5::Session;

namespace {

constexpr int most_dimensions = limits::hdf5_dimensions, most_depth = limits::hdf5_depth;
constexpr uint64_t chunk_limit = limits::hdf5_chunk_bytes;
constexpr unsigned rehearsal_seconds = limits::probe_seconds;

}  // namespace

struct Hdf5Reader::Impl {
    struct Dataset {
        Handle id;
        DType dtype;
        std::vector<hsize_t> shape;
        int64_t count;
    };
    std::string path;
    uint64_t file_bytes = 0;
    Handle file;
    std::map<std::string, Dataset> open;  // datasets that have passed every check

    void open_file() {
        const Handle access = hdf5::file_access();  // outlives the error stack, which its release would clear
        file = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access));
        if (file < 0 && hdf5::system_failed()) fail(Exit::storage, "{}: cannot read: {}", path, hdf5::last_error());
        if (file < 0) fail(Exit::data, "{}: not a readable HDF5 file: {}", path, hdf5::last_error());
    }

    [[noreturn]] void refuse(const std::string& name, const std::string& what) const {
        fail(hdf5::system_failed() ? Exit::storage : Exit::data, "{}: '{}': {}", path, name, what);
    }
    template <typename Result>
    Result check(Result result, const std::string& name) const {
        if (result < 0) refuse(name, hdf5::last_error());
        return result;
    }

    // Checks link by link, because the library would follow a link to another file.
    bool has(const std::string& name) const {
        for (const std::string& prefix : hdf5::prefixes(name)) {
            if (check(H5Lexists(file, prefix.c_str(), H5P_DEFAULT), prefix) == 0) return false;
            H5L_info_t link{};
            check(H5Lget_info(file, prefix.c_str(), &link, H5P_DEFAULT), prefix);
            if (link.type != H5L_TYPE_HARD) refuse(prefix, "a soft or external link, expected a dataset of this file");
        }
        return true;
    }

    // Must come before any other query: a virtual dataset opens other files as soon as its shape is read.
    void check_storage(const std::string& name, hid_t creation) const {
        const H5D_layout_t layout = H5Pget_layout(creation);
        if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED) refuse(name, "neither contiguous nor chunked storage");
        if (H5Pget_external_count(creation) != 0) refuse(name, "external storage");
        // A megabyte of compressed zeros is a gigabyte of numbers.
        if (check(H5Pget_nfilters(creation), name) > 0)
            refuse(name, "compressed or otherwise filtered, expected plain numbers (h5repack -f NONE OLD NEW)");
    }

    DType checked_dtype(const std::string& name, hid_t dataset) const {
        const Handle type(check(H5Dget_type(dataset), name));
        for (const DType dtype :
             {DType::u8, DType::i16, DType::i32, DType::i64, DType::f16, DType::bf16, DType::f32, DType::f64})
            if (H5Tequal(type, hdf5::type_of(dtype)) > 0) return dtype;
        refuse(name, "its type is not a little-endian u8, i32, i64, f16, bf16, f32 or f64");
    }

    std::vector<hsize_t> checked_shape(const std::string& name, hid_t dataset) const {
        const Handle space(check(H5Dget_space(dataset), name));
        const int rank = H5Sget_simple_extent_ndims(space);
        if (H5Sget_simple_extent_type(space) == H5S_NULL || rank < 0 || rank > most_dimensions)
            refuse(name, fmt::format("{} dimensions, expected at most {}", rank, most_dimensions));
        std::vector<hsize_t> shape(static_cast<size_t>(rank));
        check(H5Sget_simple_extent_dims(space, shape.data(), nullptr), name);
        return shape;
    }

    void check_chunks(const std::string& name, hid_t creation, size_t rank, uint64_t element_bytes) const {
        std::array<hsize_t, H5S_MAX_RANK> chunk{};
        if (H5Pget_chunk(creation, H5S_MAX_RANK, chunk.data()) != static_cast<int>(rank))
            refuse(name, "chunks of another rank");
        uint64_t bytes = element_bytes;
        for (size_t d = 0; d < rank; ++d)
            if (chunk[d] == 0 || __builtin_mul_overflow(bytes, chunk[d], &bytes) || bytes > chunk_limit)
                refuse(name, fmt::format("chunks that are empty or larger than {} bytes", chunk_limit));
    }

    // Product of the shape, checked against the bytes in the file.
    int64_t checked_count(const std::string& name, const Dataset& dataset, hid_t creation) const {
        uint64_t bytes = bytes_of(dataset.dtype);
        for (const hsize_t size : dataset.shape)
            if (__builtin_mul_overflow(bytes, size, &bytes)) refuse(name, "its shape overflows");
        const uint64_t available = H5Dget_storage_size(dataset.id);
        if (available > file_bytes)
            refuse(name, fmt::format("{} bytes of storage in a file of {}", available, file_bytes));
        if (H5Pget_layout(creation) == H5D_CHUNKED)
            check_chunks(name, creation, dataset.shape.size(), bytes_of(dataset.dtype));
        if (bytes > available)
            refuse(name, fmt::format("{} bytes declared, the file holds at most {}", bytes, available));
        return static_cast<int64_t>(bytes / bytes_of(dataset.dtype));
    }

    const Dataset& dataset(const std::string& name) {
        if (const auto found = open.find(name); found != open.end()) return found->second;
        if (!has(name)) refuse(name, "no such dataset");
        Dataset d{Handle(check(H5Oopen(file, name.c_str(), H5P_DEFAULT), name)), {}, {}, 0};
        if (H5Iget_type(d.id) != H5I_DATASET) refuse(name, "not a dataset");
        const Handle creation(check(H5Dget_create_plist(d.id), name));
        check_storage(name, creation);
        d.dtype = checked_dtype(name, d.id);
        d.shape = checked_shape(name, d.id);
        d.count = checked_count(name, d, creation);
        return open.emplace(name, std::move(d)).first->second;
    }

    void read(const std::string& name, const Tensor& into, int64_t begin) {
        const Dataset& found = dataset(name);
        int64_t left = into.numel();
        require(into.contiguous() && into.device == Device::cpu, "'{}': {} is not contiguous on the CPU", name, into);
        if (into.dtype != found.dtype) refuse(name, fmt::format("holds {}, expected {}", found.dtype, into.dtype));
        if (begin < 0 || begin > found.count || left > found.count - begin)
            refuse(name, fmt::format("holds {} elements, expected {} from {} on", found.count, left, begin));

        const Handle type = hdf5::type_of(into.dtype), space(H5Dget_space(found.id));
        const size_t rank = found.shape.size();
        char* to = static_cast<char*>(into.data);
        if (rank == 0 && left > 0) check(H5Dread(found.id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, to), name);
        while (rank > 0 && left > 0) {
            // The largest box that begins here and is contiguous in the flattened array: complete along the inner
            // dimensions, several steps along the outermost dimension of which complete steps are left to read.
            std::array<hsize_t, most_dimensions> start{}, size{};
            int64_t step = 1, taken = 0;
            for (size_t d = rank; d-- > 0; step *= static_cast<int64_t>(found.shape[d])) {
                const int64_t extent = static_cast<int64_t>(found.shape[d]), at = begin / step % extent;
                const int64_t steps = begin % step == 0 ? std::min(left / step, extent - at) : 0;
                start[d] = static_cast<hsize_t>(at);
                size[d] = static_cast<hsize_t>(std::max<int64_t>(steps, 1));
                if (steps > 0) taken = steps * step;
            }
            const auto count = static_cast<hsize_t>(taken);
            const Handle memory(H5Screate_simple(1, &count, nullptr));
            check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr), name);
            check(H5Dread(found.id, type, memory, space, H5P_DEFAULT, to), name);
            to += static_cast<size_t>(taken) * bytes_of(into.dtype);
            begin += taken;
            left -= taken;
        }
    }

    Handle attribute(const std::string& name, std::initializer_list<H5T_class_t> classes, const char* expected) const {
        if (H5Aexists(file, name.c_str()) <= 0) refuse(name, "no such attribute");
        Handle id(check(H5Aopen(file, name.c_str(), H5P_DEFAULT), name));
        const Handle type(check(H5Aget_type(id), name)), space(check(H5Aget_space(id), name));
        const bool known = std::ranges::count(classes, H5Tget_class(type)) > 0 && H5Tis_variable_str(type) <= 0;
        if (!known || H5Sget_simple_extent_npoints(space) != 1)
            refuse(name, fmt::format("attribute is not {}", expected));
        return id;
    }

    // True if all metadata has checksums: a superblock of version 2 or 3 (byte 8), as our writer creates.
    bool has_checksums() const {
        InputFile bytes(path);
        std::array<char, 9> head{};
        return bytes.read(head.data(), head.size()) == head.size() && head[8] >= 2;
    }

    // Of the links of a group. What cannot be read is left out.
    static std::vector<std::string> names_in(hid_t group) {
        std::vector<std::string> names;
        H5G_info_t info{};
        if (group < 0 || H5Gget_info(group, &info) < 0) return names;
        for (hsize_t i = 0; i < info.nlinks; ++i) {
            std::array<char, 1024> text{};
            if (H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, text.data(), text.size(), H5P_DEFAULT) >=
                0)
                names.emplace_back(text.data());
        }
        return names;
    }

    // Reads everything below a group, as a user of the reader might. Errors are ignored: only crashes matter.
    void visit(hid_t group, const std::string& prefix, int depth) {
        if (depth > most_depth) return;
        std::vector<char> piece(size_t{1} << 20);
        for (const std::string& own : names_in(group)) {
            const std::string name = prefix + own;
            try {
                if (!has(name)) continue;
                visit(Handle(H5Gopen2(file, name.c_str(), H5P_DEFAULT)), name + "/", depth + 1);
                const auto& [id, dtype, shape, count] = dataset(name);
                const int64_t step = std::ssize(piece) / static_cast<int64_t>(bytes_of(dtype));
                for (int64_t begin = 0; begin < count; begin += step)
                    read(name, Tensor(piece.data(), dtype, {std::min(step, count - begin)}), begin);
            } catch (const Error&) {
            }
        }
    }

    void visit_attributes() const {
        if (H5Aexists(file, "any") < 0) return;  // this call parses all of them
        for (int i = H5Aget_num_attrs(file); i-- > 0;) {
            const Handle id(H5Aopen_by_idx(file, ".", H5_INDEX_NAME, H5_ITER_INC, static_cast<hsize_t>(i), H5P_DEFAULT,
                                           H5P_DEFAULT));
            const Handle type(H5Aget_type(id));
            std::vector<char> value(std::min<size_t>(H5Aget_storage_size(id), file_bytes));
            if (!value.empty() && value.size() == H5Aget_storage_size(id)) H5Aread(id, type, value.data());
        }
    }

    // Without checksums, damaged bytes reach the library's parser, which crashes on some of them (it divides by a chunk
    // size of 0). So a child process reads everything first: if it survives, so will we. It is forked while we hold the
    // Session and takes none itself.
    void rehearse() {
        const pid_t child = ::fork();
        if (child < 0) fail(Exit::memory, "{}: cannot start a process to check it: {}", path, std::strerror(errno));
        if (child == 0) {
            const rlimit no_core{0, 0};
            ::setrlimit(RLIMIT_CORE, &no_core);
            ::alarm(rehearsal_seconds);
            hdf5::explain_nothing();
            try {
                open_file();
                visit_attributes();
                visit(file, "", 0);
                open.clear();
                file = Handle();
            } catch (...) {
            }
            ::_exit(0);
        }
        int status = 0;
        const pid_t ended = uninterrupted([&] { return ::waitpid(child, &status, 0); });
        if (ended != child || status != 0) fail(Exit::data, "{}: damaged: the HDF5 library crashes on it", path);
    }
};

Hdf5Reader::Hdf5Reader(const std::string& path) : impl_(std::make_unique<Impl>()) {
    const Session session;
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) fail(Exit::data, "{}: no such file", path);
    impl_->path = path;
    impl_->file_bytes = std::filesystem::file_size(path, error);
    if (!impl_->has_checksums()) impl_->rehearse();
    impl_->open_file();
}

Hdf5Reader::~Hdf5Reader() {
    const Session session;
    impl_.reset();
}

std::vector<std::string> Hdf5Reader::names() const {
    const Session session;
    return impl_->names_in(impl_->file);
}

bool Hdf5Reader::has(const std::string& name) const {
    const Session session;
    return impl_->has(name);
}

std::vector<int64_t> Hdf5Reader::shape(const std::string& name) const {
    const Session session;
    const auto& shape = impl_->dataset(name).shape;
    return {shape.begin(), shape.end()};
}

DType Hdf5Reader::dtype(const std::string& name) const {
    const Session session;
    return impl_->dataset(name).dtype;
}

int64_t Hdf5Reader::count(const std::string& name) const {
    const Session session;
    return impl_->dataset(name).count;
}

uint64_t Hdf5Reader::offset(const std::string& name) const {
    const Session session;
    const auto& found = impl_->dataset(name);
    const haddr_t offset = H5Dget_offset(found.id);
    if (offset == HADDR_UNDEF && found.count > 0) impl_->refuse(name, "stored in chunks, expected contiguous");
    return found.count > 0 ? offset : 0;
}

void Hdf5Reader::read(const std::string& name, const Tensor& into, int64_t begin) const {
    const Session session;
    impl_->read(name, into, begin);
}

bool Hdf5Reader::has_attribute(const std::string& name) const {
    const Session session;
    return H5Aexists(impl_->file, name.c_str()) > 0;
}

std::string Hdf5Reader::text_attribute(const std::string& name) const {
    const Session session;
    const Handle id = impl_->attribute(name, {H5T_STRING}, "one text of fixed length");
    const Handle type(impl_->check(H5Aget_type(id), name));
    const size_t size = H5Tget_size(type);
    if (size > impl_->file_bytes)
        impl_->refuse(name, fmt::format("text of {} bytes in a file of {}", size, impl_->file_bytes));
    std::string text(size, '\0');
    impl_->check(H5Aread(id, type, text.data()), name);
    text.resize(std::min(text.find('\0'), size));
    return text;
}

int64_t Hdf5Reader::int_attribute(const std::string& name) const {
    const Session session;
    const Handle id = impl_->attribute(name, {H5T_INTEGER, H5T_ENUM}, "one integer");
    int64_t value = 0;
    impl_->check(H5Aread(id, H5T_NATIVE_INT64, &value), name);
    return value;
}

}  // namespace colonnade
