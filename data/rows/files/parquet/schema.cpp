#include "data/rows/files/parquet/schema.h"

#include "engine/device/error.h"
#include "engine/io/limits.h"

namespace colonnade {
namespace {

enum Converted : int64_t {
    utf8 = 0,
    map = 1,
    map_key_value = 2,
    list = 3,
    enumeration = 4,
    decimal = 5,
    uint8 = 11,
    uint64 = 14,
    json = 19
};
enum Logical : int64_t {
    string_type = 1,
    map_type = 2,
    list_type = 3,
    enum_type = 4,
    decimal_type = 5,
    json_type = 12
};

constexpr int most_levels = limits::parquet_levels;
constexpr size_t most_leaves = limits::parquet_columns, most_path_bytes = limits::parquet_path_bytes;

class SchemaBuilder {
  public:
    SchemaBuilder(const std::vector<ParquetElement>& elements, const std::string& where)
        : elements_(elements), where_(where) {}

    ParquetSchema build() {
        if (elements_.empty()) damaged("no schema");
        schema_.root = record(take(), {.as_required = true});
        if (next_ != elements_.size()) damaged("the schema has more elements than its tree");
        return std::move(schema_);
    }

  private:
    /// Where an element stands: the levels around it, and its path.
    struct Place {
        int definition = 0, repetition = 0;
        int depth = 0;
        std::string path = {};
        bool as_required = false;  ///< its own repetition is accounted for already
    };

    [[noreturn]] void damaged(const char* what) const { fail(Exit::data, "{}: damaged: {}", where_, what); }
    [[noreturn]] void unsupported(const std::string& path, const char* what) const {
        const std::string column = path.substr(0, path.find('.'));
        fail(Exit::data,
             "{}: column '{}' holds {}, which JSON rows cannot express; write the file without it: "
             "pq.write_table(pq.read_table(OLD).drop_columns(['{}']), NEW)",
             where_, path, what, column);
    }

    const ParquetElement& take() {
        if (next_ == elements_.size()) damaged("the schema ends within its tree");
        return elements_[next_++];
    }

    ParquetField field(Place place) {
        const ParquetElement& element = take();
        const std::string around = place.path;
        if (++place.depth > most_levels) damaged("the schema is nested too deeply");
        place.path += (place.path.empty() ? "" : ".") + element.name;
        if (place.path.size() > most_path_bytes) damaged("a column whose path is longer than 4096 bytes");
        if (element.repetition == 2 && !place.as_required) {  // a list without a group around it
            --next_;
            return list_of(element, place, [&](const Place& inner) {
                Place again = inner;
                again.path = around;
                return field(again);
            });
        }
        if (element.repetition == 1 && !place.as_required) ++place.definition;
        place.as_required = false;
        if (element.children == 0) return leaf(element, place);
        if (element.converted == map || element.converted == map_key_value || element.logical == map_type)
            unsupported(place.path, "a map");
        if (element.converted == list || element.logical == list_type) return annotated_list(element, place);
        return record(element, place);
    }

    template <typename Element>
    ParquetField list_of(const ParquetElement& element, Place place, Element&& make_element) {
        ParquetField field{.kind = ParquetField::Kind::list, .name = element.name, .present = place.definition};
        field.leaves_begin = schema_.leaves.size();
        field.filled = ++place.definition;
        field.repeats = ++place.repetition;
        place.as_required = true;
        field.children.push_back(make_element(place));
        field.leaves_end = schema_.leaves.size();
        return field;
    }

    /// group NAME (LIST) { repeated R ... }: R is the element, or the group around it.
    ParquetField annotated_list(const ParquetElement& element, const Place& place) {
        if (element.children != 1 || next_ == elements_.size() || elements_[next_].repetition != 2)
            damaged("a list without its repeated field");
        const ParquetElement& repeated = elements_[next_];
        const bool around =
            repeated.children == 1 && repeated.name != "array" && repeated.name != element.name + "_tuple";
        return list_of(element, place, [&](Place inner) {
            if (around) {
                inner.path += "." + take().name;
                inner.as_required = false;
            }
            return field(inner);
        });
    }

    ParquetField record(const ParquetElement& element, const Place& place) {
        if (element.children <= 0) damaged("a group without fields");
        ParquetField record{.kind = ParquetField::Kind::record, .name = element.name, .present = place.definition};
        record.leaves_begin = schema_.leaves.size();
        Place inner = place;
        inner.as_required = false;
        for (int64_t i = 0; i < element.children; ++i) record.children.push_back(field(inner));
        record.leaves_end = schema_.leaves.size();
        return record;
    }

    ParquetField leaf(const ParquetElement& element, const Place& place) {
        if (element.type < 0 || element.type > 7) damaged("a column of an unknown type");
        if (schema_.leaves.size() == most_leaves) damaged("more than 4096 columns");
        const auto type = static_cast<ParquetType>(element.type);
        const bool text = element.converted == utf8 || element.converted == enumeration || element.converted == json ||
                          element.logical == string_type || element.logical == enum_type ||
                          element.logical == json_type;
        if (element.converted == decimal || element.logical == decimal_type) unsupported(place.path, "decimals");
        if (type == ParquetType::int96) unsupported(place.path, "INT96 values");
        if (type == ParquetType::fixed || (type == ParquetType::bytes && !text))
            unsupported(place.path, "binary values");
        ParquetField field{.name = element.name, .present = place.definition};
        field.leaves_begin = schema_.leaves.size();
        field.leaves_end = field.leaves_begin + 1;
        const bool is_unsigned = element.unsigned_int || (element.converted >= uint8 && element.converted <= uint64);
        schema_.leaves.push_back({place.path, type, is_unsigned, place.definition, place.repetition});
        return field;
    }

    const std::vector<ParquetElement>& elements_;
    const std::string& where_;
    size_t next_ = 0;
    ParquetSchema schema_;
};

}  // namespace

ParquetSchema parquet_schema(const std::vector<ParquetElement>& elements, const std::string& where) {
    return SchemaBuilder(elements, where).build();
}

}  // namespace colonnade
