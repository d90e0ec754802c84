#include "engine/io/hdf5.h"

#include <sys/resource.h>

#include <functional>
#include <numeric>
#include <thread>

#include "engine/device/float16.h"
#include "engine/io/hdf5_library.h"
#include "engine/io/sha256.h"
#include "tests/support/file_test.h"

namespace colonnade {
namespace {

using hdf5::Handle;

class Hdf5 : public FileTest {
  protected:
    // A file made with the library's own calls, in its oldest format, which our writer never produces.
    void make_raw(const std::string& name, const std::function<void(hid_t)>& fill) const {
        const hdf5::Session session;
        const Handle file(H5Fcreate(path(name).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
        ASSERT_GE(file, 0);
        fill(file);
    }
    static Handle raw_dataset(hid_t file, const char* name, hid_t type, std::vector<hsize_t> shape,
                              hid_t creation = H5P_DEFAULT) {
        const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr));
        return Handle(H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT));
    }
    static void fill_raw(hid_t dataset, std::vector<int32_t> values) {
        EXPECT_GE(H5Dwrite(dataset, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
    }
    void write_small(const std::string& name) const {
        std::vector<int32_t> values(40);
        std::iota(values.begin(), values.end(), 100);
        Hdf5Writer writer(path(name));
        writer.write("group/values", view_of(values));
        writer.attribute("text", "some text");
        writer.attribute("number", 42);
        writer.close();
    }
    // Reads everything in the file of write_small().
    static void read_small(const std::string& file) {
        const Hdf5Reader reader(file);
        if (reader.has("group/values")) (void)reader.read_all<int32_t>("group/values");
        if (reader.has_attribute("text")) (void)reader.text_attribute("text");
        if (reader.has_attribute("number")) (void)reader.int_attribute("number");
    }
};

TEST_F(Hdf5, RoundTripOfEveryType) {
    std::vector<uint8_t> u8{0, 255};
    std::vector<int32_t> i32{INT32_MIN, INT32_MAX};
    std::vector<int64_t> i64{INT64_MIN, INT64_MAX};
    std::vector<float> f32{-0.0f, 1e-40f};
    std::vector<double> f64{0.1, 1e-310};
    std::vector<uint16_t> f16{f16_from_float(1.5f), 0xfc00}, bf16{bf16_from_float(-3e38f), 1}, back(2);
    {
        Hdf5Writer writer(path("x.h5"));
        writer.write("u8", view_of(u8));
        writer.write("deep/er/i32", view_of(i32));
        writer.write("deep/i64", view_of(i64));
        writer.write("f32", Tensor(f32.data(), DType::f32, {1, 2, 1, 1}));
        writer.write("f64", view_of(f64));
        writer.write("f16", Tensor(f16.data(), DType::f16, {2}));
        writer.write("bf16", Tensor(bf16.data(), DType::bf16, {2}));
        writer.write("scalar", Tensor(f32.data() + 1, DType::f32, {}));
        writer.write("empty", Tensor(nullptr, DType::f32, {0, 3}));
        writer.attribute("text", "é and more");
        writer.attribute("none", "");
        writer.attribute("number", INT64_MIN);
        writer.close();
    }
    const Hdf5Reader reader(path("x.h5"));
    EXPECT_EQ(reader.read_all<uint8_t>("u8"), u8);
    EXPECT_EQ(reader.read_all<int32_t>("deep/er/i32"), i32);
    EXPECT_EQ(reader.read_all<int64_t>("deep/i64"), i64);
    EXPECT_EQ(reader.read_all<float>("f32"), f32);
    EXPECT_EQ(reader.shape("f32"), (std::vector<int64_t>{1, 2, 1, 1}));
    EXPECT_EQ(reader.read_all<double>("f64"), f64);
    EXPECT_EQ(reader.dtype("f16"), DType::f16);
    reader.read("f16", Tensor(back.data(), DType::f16, {2}));
    EXPECT_EQ(back, f16);
    EXPECT_EQ(reader.dtype("bf16"), DType::bf16);
    reader.read("bf16", Tensor(back.data(), DType::bf16, {2}));
    EXPECT_EQ(back, bf16);
    EXPECT_EQ(reader.read_all<float>("scalar"), std::vector<float>{1e-40f});
    EXPECT_TRUE(reader.shape("scalar").empty());
    EXPECT_EQ(reader.shape("empty"), (std::vector<int64_t>{0, 3}));
    EXPECT_TRUE(reader.read_all<float>("empty").empty());
    EXPECT_EQ(reader.text_attribute("text"), "é and more");
    EXPECT_EQ(reader.text_attribute("none"), "");
    EXPECT_EQ(reader.int_attribute("number"), INT64_MIN);
    EXPECT_TRUE(reader.has("deep/er/i32") && reader.has("deep"));
    EXPECT_FALSE(reader.has("deep/none/i32") || reader.has("none"));
    EXPECT_FALSE(reader.has_attribute("missing"));
}

TEST_F(Hdf5, AppendsPieces) {
    std::vector<int64_t> values(1000);
    std::iota(values.begin(), values.end(), 0);
    {
        Hdf5Writer writer(path("x.h5"));
        writer.create("a/rows", DType::i64, 1000);
        writer.create("none", DType::f32, 0);
        for (int64_t begin = 0, size = 0; begin < 1000; begin += size, ++size)
            writer.append("a/rows", view_of(values).slice(0, begin, std::min<int64_t>(begin + size, 1000)));
        writer.close();
    }
    const Hdf5Reader reader(path("x.h5"));
    EXPECT_EQ(reader.read_all<int64_t>("a/rows"), values);
    EXPECT_EQ(reader.count("none"), 0);
}

// Any range of the flattened array, across the boundaries of its dimensions; contiguous and in chunks.
TEST_F(Hdf5, ReadsAnyRun) {
    std::vector<int32_t> values(2 * 3 * 4 * 5);
    std::iota(values.begin(), values.end(), 0);
    {
        Hdf5Writer writer(path("plain"));
        writer.write("x", Tensor(values.data(), DType::i32, {2, 3, 4, 5}));
        writer.close();
    }
    make_raw("chunked", [&](hid_t file) {
        const Handle creation(H5Pcreate(H5P_DATASET_CREATE));
        const hsize_t chunk[] = {1, 2, 3, 4};
        H5Pset_chunk(creation, 4, chunk);
        fill_raw(raw_dataset(file, "x", H5T_STD_I32LE, {2, 3, 4, 5}, creation), values);
    });
    for (const char* name : {"plain", "chunked"}) {
        const Hdf5Reader reader(path(name));
        for (int64_t begin = 0; begin <= 120; ++begin)
            for (int64_t count = 0; count <= 120 - begin; count += 1 + count / 7) {
                std::vector<int32_t> run(static_cast<size_t>(count), -1);
                reader.read("x", view_of(run), begin);
                ASSERT_EQ(run, std::vector<int32_t>(values.begin() + begin, values.begin() + begin + count))
                    << begin << " " << count;
            }
        int32_t one = 0;
        expect_error(Exit::data, "'x': holds 120 elements, expected 1 from 120 on",
                     [&] { reader.read("x", Tensor(&one, DType::i32, {1}), 120); });
        expect_error(Exit::data, "expected 1 from -1 on", [&] { reader.read("x", Tensor(&one, DType::i32, {1}), -1); });
        expect_error(Exit::data, "'x': holds i32, expected f32",
                     [&] { reader.read("x", Tensor(&one, DType::f32, {1})); });
    }
}

TEST_F(Hdf5, SameContentSameBytes) {
    write_small("a");
    write_small("b");
    EXPECT_EQ(sha256_file(path("a")), sha256_file(path("b")));
    const hdf5::Session session;
    const Handle file(H5Fopen(path("a").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
    for (const char* name : {"/", "group", "group/values"}) {
        H5O_info_t info{};
        ASSERT_GE(H5Oget_info_by_name(file, name, &info, H5P_DEFAULT), 0);
        EXPECT_EQ(info.mtime, 0) << name << " has no time stamp";
    }
}

TEST_F(Hdf5, WriterChecksItsUse) {
    spill(path("taken"), "mine");
    expect_error(Exit::storage, "taken: cannot create: ", [&] { Hdf5Writer writer(path("taken")); });
    EXPECT_EQ(slurp(path("taken")), "mine");
    expect_error(Exit::storage, "none/x: cannot create: No such file or directory",
                 [&] { Hdf5Writer writer(path("none/x")); });
    std::vector<float> values(3);
    { Hdf5Writer(path("half")).write("a", view_of(values)); }
    EXPECT_FALSE(std::filesystem::exists(path("half"))) << "not closed, so removed";
    expect_error(Exit::internal, "'a' has 3 of its 4 rows", [&] {
        Hdf5Writer writer(path("half"));
        writer.create("a", DType::f32, 4);
        writer.append("a", view_of(values));
        writer.close();
    });
    EXPECT_FALSE(std::filesystem::exists(path("half")));
    Hdf5Writer writer(path("x"));
    writer.create("a", DType::f32, 4);
    expect_error(Exit::internal, "'a' is written twice", [&] { writer.write("a", view_of(values)); });
    expect_error(Exit::internal, "append to 'b', which was not created", [&] { writer.append("b", view_of(values)); });
    writer.append("a", view_of(values));
    expect_error(Exit::internal, "[3] f32 does not fit after 3 of 4 rows",
                 [&] { writer.append("a", view_of(values)); });
    expect_error(Exit::internal, "attribute 't': 64001 bytes",
                 [&] { writer.attribute("t", std::string(64'001, 'x')); });
    writer.attribute("t", std::string(64'000, 'x'));
    writer.append("a", view_of(values).slice(0, 0, 1));
    writer.close();
    expect_error(Exit::internal, "written after close()", [&] { writer.write("c", view_of(values)); });
    EXPECT_EQ(Hdf5Reader(path("x")).text_attribute("t").size(), 64'000u);
}

// A full disk, simulated by the file size limit: exit code 7, no file, and the library still works in the same process.
TEST_F(Hdf5, DiskFull) {
    for (const size_t limit_bytes : {0, 100, 3000, 40'000, 400'000}) {
        const int status = exit_of_child([&] {
            return run_program("test", [&] {
                const rlimit limit{limit_bytes, RLIM_INFINITY}, none{RLIM_INFINITY, RLIM_INFINITY};
                std::vector<float> values(100'000);
                setrlimit(RLIMIT_FSIZE, &limit);
                const std::string message = expect_error(Exit::storage, "full: cannot ", [&] {
                    Hdf5Writer writer(path("full"));
                    writer.write("small", view_of(values).slice(0, 0, 10));
                    writer.create("pieces", DType::f32, 100);
                    writer.append("pieces", view_of(values).slice(0, 0, 100));
                    writer.write("large", view_of(values));
                    writer.close();
                });
                setrlimit(RLIMIT_FSIZE, &none);
                EXPECT_NE(message.find("File too large"), std::string::npos) << message;
                EXPECT_EQ(listing(folder_), "");
                write_small("full");
                read_small(path("full"));
                return testing::Test::HasFailure() ? 1 : 0;
            });
        });
        EXPECT_EQ(status, 0) << "limit " << limit_bytes;
        std::filesystem::remove(path("full"));
    }
}

// --- Files of other programs -----------------------------------------------------------------------------------------

TEST_F(Hdf5, RefusesLinksAndStorageOutsideTheFile) {
    spill(path("secret"), std::string(400, 's'));
    write_small("other");
    make_raw("x", [&](hid_t file) {
        const Handle external(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_external(external, path("secret").c_str(), 0, 400);
        raw_dataset(file, "external", H5T_STD_I32LE, {100}, external);

        const Handle virtual_source(H5Pcreate(H5P_DATASET_CREATE));
        const hsize_t forty = 40;
        const Handle space(H5Screate_simple(1, &forty, nullptr));
        H5Pset_virtual(virtual_source, space, path("other").c_str(), "group/values", space);
        raw_dataset(file, "virtual", H5T_STD_I32LE, {40}, virtual_source);

        H5Lcreate_external(path("other").c_str(), "group/values", file, "external_link", H5P_DEFAULT, H5P_DEFAULT);
        H5Lcreate_external(path("other").c_str(), "group", file, "external_group", H5P_DEFAULT, H5P_DEFAULT);
        H5Lcreate_soft("/external", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    });
    const struct {
        const char *name, *part;
    } rows[] = {
        {"external", "'external': external storage"},
        {"virtual", "'virtual': neither contiguous nor chunked"},
        {"external_link", "'external_link': a soft or external link"},
        {"external_group/values", "'external_group': a soft or external link"},
        {"soft", "'soft': a soft or external link"},
        {"none", "'none': no such dataset"},
    };
    const Hdf5Reader reader(path("x"));
    for (const auto& row : rows) {
        expect_error(Exit::data, path("x") + ": " + row.part, [&] { reader.read_all<int32_t>(row.name); });
        expect_error(Exit::data, row.part, [&] { reader.shape(row.name); });
    }
    expect_error(Exit::data, "'external_group': a soft or external link",
                 [&] { (void)reader.has("external_group/values"); });
}

TEST_F(Hdf5, RefusesUnsupportedShapesAndTypes) {
    make_raw("x", [&](hid_t file) {
        const Handle late(H5Pcreate(H5P_DATASET_CREATE)), chunked(H5Pcreate(H5P_DATASET_CREATE)),
            packed(H5Pcreate(H5P_DATASET_CREATE)), compact(H5Pcreate(H5P_DATASET_CREATE)),
            scaled(H5Pcreate(H5P_DATASET_CREATE)), large(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_alloc_time(late, H5D_ALLOC_TIME_LATE);
        raw_dataset(file, "petabytes", H5T_STD_I64LE, {hsize_t{1} << 50}, late);
        raw_dataset(file, "unwritten", H5T_STD_I64LE, {10}, late);
        const hsize_t hundred = 100, huge = hsize_t{1} << 28;
        H5Pset_chunk(chunked, 1, &hundred);
        raw_dataset(file, "chunked", H5T_STD_I64LE, {hsize_t{1} << 50}, chunked);
        H5Pset_chunk(packed, 1, &hundred);
        H5Pset_deflate(packed, 9);
        raw_dataset(file, "packed", H5T_STD_I64LE, {hsize_t{1} << 50}, packed);
        H5Pset_chunk(large, 1, &huge);
        raw_dataset(file, "large_chunks", H5T_STD_I64LE, {huge}, large);
        H5Pset_layout(compact, H5D_COMPACT);
        fill_raw(raw_dataset(file, "compact", H5T_STD_I32LE, {2}, compact), {1, 2});
        H5Pset_chunk(scaled, 1, &hundred);
        H5Pset_scaleoffset(scaled, H5Z_SO_INT, 0);
        fill_raw(raw_dataset(file, "scaled", H5T_STD_I32LE, {100}, scaled), std::vector<int32_t>(100, 1));
        fill_raw(raw_dataset(file, "five", H5T_STD_I32LE, {1, 1, 1, 1, 1}), {1});
        const Handle null_space(H5Screate(H5S_NULL));
        Handle(H5Dcreate2(file, "null", H5T_STD_I32LE, null_space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        Handle(H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));

        const Handle text(H5Tcopy(H5T_C_S1)), list(H5Tvlen_create(H5T_STD_I32LE));
        H5Tset_size(text, H5T_VARIABLE);
        raw_dataset(file, "strings", text, {2});
        raw_dataset(file, "lists", list, {2});
        raw_dataset(file, "references", H5T_STD_REF_OBJ, {2});
        raw_dataset(file, "big_endian", H5T_STD_I32BE, {2});
        raw_dataset(file, "unsigned", H5T_STD_U32LE, {2});
    });
    const struct {
        const char *name, *part;
    } rows[] = {
        {"petabytes", "'petabytes': 9007199254740992 bytes declared, the file holds at most 0"},
        {"unwritten", "80 bytes declared, the file holds at most 0"},
        {"chunked", "9007199254740992 bytes declared, the file holds at most 0"},
        {"packed", "compressed or otherwise filtered, expected plain numbers"},
        {"large_chunks", "chunks that are empty or larger than 16777216 bytes"},
        {"compact", "neither contiguous nor chunked"},
        {"scaled", "compressed or otherwise filtered, expected plain numbers"},
        {"five", "5 dimensions, expected at most 4"},
        {"null", "0 dimensions"},
        {"group", "'group': not a dataset"},
        {"strings", "its type is not a little-endian"},
        {"lists", "its type is not a little-endian"},
        {"references", "its type is not a little-endian"},
        {"big_endian", "its type is not a little-endian"},
        {"unsigned", "its type is not a little-endian"},
    };
    const Hdf5Reader reader(path("x"));
    for (const auto& row : rows) expect_error(Exit::data, row.part, [&] { reader.count(row.name); });
}

TEST_F(Hdf5, Attributes) {
    make_raw("x", [](hid_t file) {
        const auto add = [&](const char* name, hid_t type, hid_t space, const void* value) {
            const Handle id(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
            EXPECT_GE(H5Awrite(id, type, value), 0) << name;
        };
        const hsize_t two = 2;
        const Handle scalar(H5Screate(H5S_SCALAR)), pair(H5Screate_simple(1, &two, nullptr));
        const Handle boolean(H5Tenum_create(H5T_STD_I8LE)), variable(H5Tcopy(H5T_C_S1)), padded(H5Tcopy(H5T_C_S1));
        const int8_t no = 0, yes = 1;
        H5Tenum_insert(boolean, "FALSE", &no);
        H5Tenum_insert(boolean, "TRUE", &yes);
        add("bool", boolean, scalar, &yes);  // as h5py stores it
        const uint8_t small = 200;
        add("small", H5T_STD_U8LE, scalar, &small);
        const int32_t numbers[] = {1, 2};
        add("pair", H5T_STD_I32LE, pair, numbers);
        const double real = 1;
        add("real", H5T_IEEE_F64LE, scalar, &real);
        H5Tset_size(variable, H5T_VARIABLE);
        const char* text = "text";
        add("variable", variable, scalar, &text);
        H5Tset_size(padded, 4);
        H5Tset_strpad(padded, H5T_STR_NULLPAD);
        add("unterminated", padded, scalar, text);
    });
    const Hdf5Reader reader(path("x"));
    EXPECT_EQ(reader.int_attribute("bool"), 1);
    EXPECT_EQ(reader.int_attribute("small"), 200);
    EXPECT_EQ(reader.text_attribute("unterminated"), "text");
    for (const char* name : {"pair", "real", "variable"})
        expect_error(Exit::data, fmt::format("'{}': attribute is not one integer", name),
                     [&] { reader.int_attribute(name); });
    for (const char* name : {"pair", "small", "variable"})
        expect_error(Exit::data, fmt::format("'{}': attribute is not one text", name),
                     [&] { reader.text_attribute(name); });
    expect_error(Exit::data, "'none': no such attribute", [&] { reader.int_attribute("none"); });
}

TEST_F(Hdf5, RefusesWhatIsNotAnHdf5File) {
    spill(path("text"), "not HDF5 at all");
    expect_error(Exit::data, "text: not a readable HDF5 file", [&] { Hdf5Reader reader(path("text")); });
    expect_error(Exit::data, "none: no such file", [&] { Hdf5Reader reader(path("none")); });
    expect_error(Exit::data, folder_ + ": no such file", [&] { Hdf5Reader reader(folder_); });
}

TEST_F(Hdf5, RefusesEveryTruncation) {
    write_small("whole");
    const std::string whole = slurp(path("whole"));
    const int status = exit_of_child([&] {
        for (size_t length = 0; length < whole.size(); ++length) {
            spill(path("x"), whole.substr(0, length));
            expect_error(Exit::data, "x: not a readable HDF5 file", [&] { read_small(path("x")); });
        }
        return testing::Test::HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(status, 0);
}

// A file with any one bit flipped is read or refused, without a crash. The hashes in manifests and stores detect flips
// in the numbers themselves, which the library cannot see.
TEST_F(Hdf5, BitFlipsDoNotCrash) {
    write_small("whole");
    const std::string whole = slurp(path("whole"));
    const int status = exit_of_child([&] {
        int refused = 0;
        for (size_t byte = 0; byte < whole.size(); ++byte) {
            std::string flipped = whole;
            flipped[byte] = static_cast<char>(flipped[byte] ^ (1 << byte % 8));
            spill(path("x"), flipped);
            try {
                read_small(path("x"));
            } catch (const Error& e) {
                EXPECT_EQ(e.exit(), Exit::data) << e.what();
                ++refused;
            }
        }
        EXPECT_GT(refused, 100) << "metadata has checksums";
        return testing::Test::HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(status, 0);
}

// The old format has no checksums, and the library crashes on some damage to it: then only the reader's child process
// does.
TEST_F(Hdf5, BitFlipsInTheOldFormatDoNotCrash) {
    make_raw("whole", [](hid_t file) {
        const Handle creation(H5Pcreate(H5P_DATASET_CREATE)), scalar(H5Screate(H5S_SCALAR));
        const hsize_t chunk = 20;
        H5Pset_chunk(creation, 1, &chunk);
        fill_raw(raw_dataset(file, "values", H5T_STD_I32LE, {40}, creation), std::vector<int32_t>(40, 7));
        const Handle number(H5Acreate2(file, "number", H5T_STD_I32LE, scalar, H5P_DEFAULT, H5P_DEFAULT));
    });
    const std::string whole = slurp(path("whole"));
    // The layout message: version 3, chunked, 2 dimensions (one of them the element size). Read as version 2, whose
    // fields are at other offsets, it gives chunks of size 0, by which the library divides.
    const size_t at = whole.find("\x03\x02\x02");
    ASSERT_NE(at, whole.npos);
    std::string flipped = whole;
    flipped[at] = 2;
    spill(path("x"), flipped);
    expect_error(Exit::data, "x: damaged: the HDF5 library crashes on it", [&] { Hdf5Reader reader(path("x")); });

    const int status = exit_of_child([&] {
        for (size_t byte = 0; byte < whole.size(); byte += whole[byte] == 0 ? 11 : 1) {
            flipped = whole;
            flipped[byte] = static_cast<char>(flipped[byte] ^ (1 << byte % 8));
            spill(path("x"), flipped);
            try {
                const Hdf5Reader reader(path("x"));
                if (reader.has("values")) (void)reader.read_all<int32_t>("values");
                if (reader.has_attribute("number")) (void)reader.int_attribute("number");
            } catch (const Error& e) {
                EXPECT_EQ(e.exit(), Exit::data) << e.what();
            }
        }
        return testing::Test::HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(status, 0);
}

// Readers and a writer on separate threads, as in the loader and a checkpoint.
TEST_F(Hdf5, SeparateThreads) {
    write_small("shared");
    std::vector<std::string> errors(4);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < errors.size(); ++t)
        threads.emplace_back([&, t] {
            try {
                for (int i = 0; i < 20; ++i) {
                    read_small(path("shared"));
                    const std::string own = fmt::format("own{}-{}", t, i);
                    write_small(own);
                    read_small(path(own));
                }
            } catch (const std::exception& e) {
                errors[t] = e.what();
            }
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(errors, std::vector<std::string>(4));
}

}  // namespace
}  // namespace colonnade
