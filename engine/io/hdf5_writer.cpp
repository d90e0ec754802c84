#include <fcntl.h>

#include <array>
#include <map>

#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/hdf5_library.h"
#include "engine/io/system_call.h"

namespace colonnade {

using hdf5::Handle;
using hdf5::Session;

namespace {

constexpr size_t text_limit = 64'000;  // an attribute is stored in an object header of at most 64 KiB

Handle without_times(hid_t property_class) {
    Handle list(H5Pcreate(property_class));
    H5Pset_obj_track_times(list, false);
    return list;
}

}  // namespace

struct Hdf5Writer::Impl {
    struct Array {
        Handle id;
        DType dtype;
        int64_t rows, filled;
        std::optional<int64_t> width;  ///< of a row; nothing in one dimension
    };
    std::string path;
    hid_t file = H5I_INVALID_HID;
    bool ours = false;  // created here and not finished: remove it
    std::map<std::string, Array> unfinished;

    void abandon() {
        unfinished.clear();
        if (file >= 0) H5Fclose(std::exchange(file, H5I_INVALID_HID));
        if (std::exchange(ours, false)) file_system().unlink(path);
    }

    // A negative result abandons the file.
    template <typename Result>
    Result check(Result result, const char* action, const std::string& name = {}) {
        if (result >= 0) return result;
        const std::string error = hdf5::last_error();
        abandon();
        const bool no_memory = error.find("memory allocation failed") != error.npos;
        fail(no_memory ? Exit::memory : Exit::storage, "{}: cannot {}{}{}: {}", path, action, name.empty() ? "" : " ",
             name, error);
    }

    Handle make(const std::string& name, DType dtype, const std::vector<hsize_t>& dims) {
        require(file >= 0, "{}: written after close()", path);
        for (const std::string& prefix : hdf5::prefixes(name)) {
            const bool exists = check(H5Lexists(file, prefix.c_str(), H5P_DEFAULT), "look for", prefix) > 0;
            require(!exists || prefix != name, "{}: '{}' is written twice", path, name);
            if (exists || prefix == name) continue;
            const Handle properties = without_times(H5P_GROUP_CREATE);
            Handle(check(H5Gcreate2(file, prefix.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT), "create", prefix));
        }
        const Handle properties = without_times(H5P_DATASET_CREATE);
        H5Pset_layout(properties, H5D_CONTIGUOUS);
        H5Pset_alloc_time(properties, H5D_ALLOC_TIME_EARLY);
        H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER);  // every element is written
        const Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr)),
            type = hdf5::type_of(dtype);
        return Handle(
            check(H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT), "create", name));
    }

    // Closing writes the data of small arrays, which the library buffers.
    void finish(Handle& dataset, const std::string& name) { check(H5Dclose(dataset.release()), "finish", name); }

    void write_attribute(const std::string& name, hid_t type, const void* value) {
        require(file >= 0, "{}: written after close()", path);
        const Handle space(H5Screate(H5S_SCALAR));
        const Handle id(
            check(H5Acreate2(file, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), "create attribute", name));
        check(H5Awrite(id, type, value), "write attribute", name);
    }
};

Hdf5Writer::Hdf5Writer(const std::string& path) : impl_(std::make_unique<Impl>()) {
    const Session session;
    impl_->path = path;
    // Created by ourselves first, so that a failure after this line removes only a file of ours.
    const FileDescriptor claimed(uninterrupted([&] { return file_system().open(path, O_WRONLY | O_CREAT | O_EXCL); }));
    if (claimed < 0) refused("create", path);
    impl_->ours = true;
    const Handle creation = without_times(H5P_FILE_CREATE), access = hdf5::file_access();
    impl_->file = impl_->check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), "create");
}

Hdf5Writer::~Hdf5Writer() {
    const Session session;
    impl_->abandon();
}

void Hdf5Writer::write(const std::string& name, const Tensor& tensor) {
    const Session session;
    require(tensor.contiguous() && tensor.device == Device::cpu, "'{}': {} is not contiguous on the CPU", name, tensor);
    Handle dataset = impl_->make(name, tensor.dtype, {tensor.shape.begin(), tensor.shape.begin() + tensor.rank});
    if (tensor.numel() > 0)
        impl_->check(H5Dwrite(dataset, hdf5::type_of(tensor.dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.data),
                     "write", name);
    impl_->finish(dataset, name);
}

void Hdf5Writer::create(const std::string& name, DType dtype, int64_t rows, std::optional<int64_t> width) {
    const Session session;
    std::vector<hsize_t> shape = {static_cast<hsize_t>(rows)};
    if (width) shape.push_back(static_cast<hsize_t>(*width));
    impl_->unfinished.insert_or_assign(name, Impl::Array{impl_->make(name, dtype, shape), dtype, rows, 0, width});
}

void Hdf5Writer::append(const std::string& name, const Tensor& piece) {
    const Session session;
    const auto found = impl_->unfinished.find(name);
    require(found != impl_->unfinished.end(), "{}: append to '{}', which was not created", impl_->path, name);
    Impl::Array& array = found->second;
    const int64_t width = array.width.value_or(1), rows = piece.numel() / std::max<int64_t>(width, 1);
    require(piece.contiguous() && piece.device == Device::cpu && piece.dtype == array.dtype &&
                piece.numel() == rows * width && rows <= array.rows - array.filled,
            "'{}': {} does not fit after {} of {} rows of {} {}", name, piece, array.filled, array.rows, width,
            array.dtype);
    if (piece.numel() == 0) return;
    const std::array<hsize_t, 2> begin = {static_cast<hsize_t>(array.filled), 0},
                                 count = {static_cast<hsize_t>(rows), static_cast<hsize_t>(width)};
    const Handle memory(H5Screate_simple(array.width ? 2 : 1, count.data(), nullptr)), space(H5Dget_space(array.id));
    impl_->check(H5Sselect_hyperslab(space, H5S_SELECT_SET, begin.data(), nullptr, count.data(), nullptr), "select",
                 name);
    impl_->check(H5Dwrite(array.id, hdf5::type_of(piece.dtype), memory, space, H5P_DEFAULT, piece.data), "write", name);
    array.filled += rows;
}

uint64_t Hdf5Writer::reserve(const std::string& name, DType dtype, int64_t rows) {
    const Session session;
    Handle dataset = impl_->make(name, dtype, {static_cast<hsize_t>(rows)});
    const haddr_t offset = H5Dget_offset(dataset);
    require(rows == 0 || offset != HADDR_UNDEF, "{}: '{}' has no place in the file yet", impl_->path, name);
    impl_->finish(dataset, name);
    return rows == 0 ? 0 : offset;
}

void Hdf5Writer::attribute(const std::string& name, std::string_view text) {
    const Session session;
    require(text.size() <= text_limit && text.find('\0') == text.npos,
            "attribute '{}': {} bytes, expected at most {} without NUL", name, text.size(), text_limit);
    const Handle type(H5Tcopy(H5T_C_S1));
    H5Tset_size(type, text.size() + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    impl_->write_attribute(name, type, std::string(text).c_str());
}

void Hdf5Writer::attribute(const std::string& name, int64_t value) {
    const Session session;
    impl_->write_attribute(name, hdf5::type_of(DType::i64), &value);
}

void Hdf5Writer::close() {
    const Session session;
    require(impl_->file >= 0, "{}: closed twice", impl_->path);
    for (auto& [name, array] : impl_->unfinished) {
        require(array.filled == array.rows, "{}: '{}' has {} of its {} rows", impl_->path, name, array.filled,
                array.rows);
        impl_->finish(array.id, name);
    }
    impl_->unfinished.clear();
    impl_->check(H5Fclose(std::exchange(impl_->file, H5I_INVALID_HID)), "close");
    sync_path(impl_->path);  // the library does not
    impl_->ours = false;
}

}  // namespace colonnade
