#include "engine/io/png.h"

#include <png.h>

#include "engine/device/error.h"

namespace colonnade {

std::string png_of(const PixelPicture& picture) {
    static_assert(sizeof(Colour) == 3, "libpng reads three bytes a pixel");
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = static_cast<png_uint_32>(picture.width);
    image.height = static_cast<png_uint_32>(picture.height);
    image.format = PNG_FORMAT_RGB;
    const auto write = [&](void* to, png_alloc_size_t* bytes) {
        if (!png_image_write_to_memory(&image, to, bytes, 0, picture.pixels.data(), 0, nullptr))
            fail(Exit::internal, "a picture of {} x {} pixels: {}", picture.width, picture.height, image.message);
    };
    png_alloc_size_t bytes = 0;
    write(nullptr, &bytes);  // says how many
    std::string file(bytes, '\0');
    write(file.data(), &bytes);
    file.resize(bytes);
    return file;
}

}  // namespace colonnade
