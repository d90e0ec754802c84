#pragma once
// ThriftReader: Thrift's compact protocol (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md), as far as
// Parquet's metadata uses it. Every read is checked; nothing is allocated.

#include <cstdint>
#include <cstring>
#include <string_view>

#include "engine/io/limits.h"

namespace colonnade {

class ThriftReader {
  public:
    struct Truncated {};  ///< thrown if the bytes end too early
    struct Damaged {};    ///< thrown for anything else that is wrong
    struct Field {
        int64_t id = 0;
        int type = 0;
    };

    explicit ThriftReader(std::string_view bytes) : bytes_(bytes) {}
    size_t position() const { return at_; }

    /// Calls on_field(field) for every field of a struct; it has to read or skip the value.
    template <typename OnField>
    void fields(OnField&& on_field) {
        if (++depth_ > most_depth) throw Damaged();
        for (Field field;;) {
            const uint8_t head = byte();
            if (head == 0) break;
            field.type = head & 15;
            field.id = head >> 4 ? field.id + (head >> 4) : zigzag();
            if (field.id < INT16_MIN || field.id > INT16_MAX) throw Damaged();
            on_field(field);
        }
        --depth_;
    }
    /// Calls on_element(field) for every element of a list; it has to read or skip the value.
    template <typename OnElement>
    void list(const Field& field, OnElement&& on_element) {
        if (field.type != list_type && field.type != set_type) throw Damaged();
        const uint8_t head = byte();
        const uint64_t size = head >> 4 == 15 ? varint() : head >> 4;
        if (size > bytes_.size() - at_) throw Truncated();  // an element has at least one byte
        if (++depth_ > most_depth) throw Damaged();
        for (uint64_t i = 0; i < size; ++i) on_element(Field{static_cast<int64_t>(i), head & 15});
        --depth_;
    }
    int64_t integer(const Field& field) {
        if (field.type == byte_type) return static_cast<int8_t>(byte());
        if (field.type < i16_type || field.type > i64_type) throw Damaged();
        return zigzag();
    }
    bool boolean(const Field& field) {
        if (field.type != true_type && field.type != false_type) throw Damaged();
        return field.type == true_type;
    }
    std::string_view binary(const Field& field) {
        if (field.type != binary_type) throw Damaged();
        return take(varint());
    }
    template <typename OnField>
    void structure(const Field& field, OnField&& on_field) {
        if (field.type != struct_type) throw Damaged();
        fields(on_field);
    }
    void skip(const Field& field) {
        switch (field.type) {
            case true_type:
            case false_type:
                break;
            case double_type:
                take(8);
                break;
            case binary_type:
                binary(field);
                break;
            case list_type:
            case set_type:
                list(field, [&](const Field& element) { skip_element(element); });
                break;
            case map_type:
                skip_map();
                break;
            case struct_type:
                fields([&](const Field& inner) { skip(inner); });
                break;
            default:
                integer(field);
        }
    }

  private:
    static constexpr int most_depth = limits::thrift_depth;  ///< structs, lists and maps inside one another
    enum : int {
        true_type = 1,
        false_type,
        byte_type,
        i16_type,
        i32_type,
        i64_type,
        double_type,
        binary_type,
        list_type,
        set_type,
        map_type,
        struct_type
    };

    std::string_view take(uint64_t size) {
        if (size > bytes_.size() - at_) throw Truncated();
        at_ += size;
        return bytes_.substr(at_ - size, size);
    }
    uint8_t byte() { return static_cast<uint8_t>(take(1).front()); }
    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const uint64_t next = byte();
            value |= (next & 127) << shift;
            if (next < 128) return value;
        }
        throw Damaged();
    }
    int64_t zigzag() {
        const uint64_t value = varint();
        return static_cast<int64_t>(value >> 1 ^ (~(value & 1) + 1));
    }
    /// In lists and maps a bool has a byte of its own.
    void skip_element(const Field& element) {
        if (element.type == true_type || element.type == false_type)
            byte();
        else
            skip(element);
    }
    void skip_map() {
        const uint64_t size = varint();
        if (size == 0) return;
        const uint8_t types = byte();
        if (size > bytes_.size() - at_) throw Truncated();
        if (++depth_ > most_depth) throw Damaged();
        for (uint64_t i = 0; i < size; ++i) {
            skip_element({0, types >> 4});
            skip_element({0, types & 15});
        }
        --depth_;
    }

    std::string_view bytes_;
    size_t at_ = 0;
    int depth_ = 0;
};

}  // namespace colonnade
