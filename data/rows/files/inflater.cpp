#include "data/rows/files/inflater.h"

#include <snappy.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <climits>

#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr int zlib_or_gzip = 15 + 32;  ///< windowBits of inflateInit2(): largest window, header detected

class ZlibStream {
  public:
    ZlibStream() {
        if (inflateInit2(&stream, zlib_or_gzip) != Z_OK) fail(Exit::memory, "no memory for zlib");
    }
    ~ZlibStream() { inflateEnd(&stream); }
    ZlibStream(const ZlibStream&) = delete;
    ZlibStream& operator=(const ZlibStream&) = delete;

    /// One call of zlib's inflate() over these bytes. It takes pieces of up to 4 GiB.
    int run(std::string_view in, char* out, size_t room, Inflater::Step& step) {
        stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
        stream.avail_in = static_cast<uInt>(std::min<size_t>(in.size(), UINT_MAX));
        stream.next_out = reinterpret_cast<Bytef*>(out);
        stream.avail_out = static_cast<uInt>(std::min<size_t>(room, UINT_MAX));
        const int result = inflate(&stream, Z_NO_FLUSH);
        step.consumed = static_cast<size_t>(reinterpret_cast<const char*>(stream.next_in) - in.data());
        step.produced = static_cast<size_t>(reinterpret_cast<char*>(stream.next_out) - out);
        return result;
    }

    z_stream stream{};
};

class GzipInflater : public Inflater {
  public:
    Step step(std::string_view in, char* out, size_t room) override {
        Step done;
        if (complete_) {  // another member follows
            if (in.front() != '\x1F') return {.error = "bytes that are no gzip data follow its end"};
            inflateReset(&zlib_.stream);
        }
        const int result = zlib_.run(in, out, room, done);
        complete_ = result == Z_STREAM_END;
        if (result != Z_OK && result != Z_BUF_ERROR && !complete_)
            done.error = zlib_.stream.msg ? zlib_.stream.msg : "invalid data";
        return done;
    }
    bool complete() const override { return complete_; }
    const char* name() const override { return "gzip"; }

  private:
    ZlibStream zlib_;
    bool complete_ = false;
};

class ZstdInflater : public Inflater {
  public:
    ZstdInflater() : context_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
        if (!context_) fail(Exit::memory, "no memory for zstd");
    }
    Step step(std::string_view in, char* out, size_t room) override {
        ZSTD_inBuffer from{in.data(), in.size(), 0};
        ZSTD_outBuffer to{out, room, 0};
        const size_t left = ZSTD_decompressStream(context_.get(), &to, &from);
        complete_ = left == 0;
        const bool window = ZSTD_getErrorCode(left) == ZSTD_error_frameParameter_windowTooLarge;
        return {from.pos, to.pos,
                window               ? "its window is larger than 128 MiB; compress it again without --long"
                : ZSTD_isError(left) ? ZSTD_getErrorName(left)
                                     : nullptr};
    }
    bool complete() const override { return complete_; }
    const char* name() const override { return "zstd"; }

  private:
    std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context_;
    bool complete_ = false;
};

}  // namespace

std::unique_ptr<Inflater> gzip_inflater() {
    return std::make_unique<GzipInflater>();
}
std::unique_ptr<Inflater> zstd_inflater() {
    return std::make_unique<ZstdInflater>();
}

bool inflate_gzip(std::string_view in, char* out, size_t bytes) {
    ZlibStream zlib;
    Inflater::Step step;
    int result = Z_OK;
    while (result == Z_OK) {
        result = zlib.run(in, out, bytes, step);
        in.remove_prefix(step.consumed);
        out += step.produced;
        bytes -= step.produced;
        if (result == Z_STREAM_END && !in.empty()) result = inflateReset(&zlib.stream);  // another member
        if (result == Z_OK && step.consumed + step.produced == 0) return false;
    }
    return result == Z_STREAM_END && bytes == 0;
}

bool inflate_zstd(std::string_view in, char* out, size_t bytes) {
    const size_t written = ZSTD_decompress(out, bytes, in.data(), in.size());
    return !ZSTD_isError(written) && written == bytes;
}

bool inflate_snappy(std::string_view in, char* out, size_t bytes) {
    size_t size = 0;
    return snappy::GetUncompressedLength(in.data(), in.size(), &size) && size == bytes &&
           snappy::RawUncompress(in.data(), in.size(), out);
}

uint32_t crc32_of(std::string_view bytes) {
    return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace colonnade
