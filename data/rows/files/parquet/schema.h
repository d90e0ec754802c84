#pragma once
// The schema of a Parquet file as a tree of JSON values, and the levels (Dremel: Melnik et al., 2010) that separate
// values from nulls and lists from one another.

#include <cstdint>
#include <string>
#include <vector>

namespace colonnade {

enum class ParquetType { boolean = 0, int32 = 1, int64 = 2, int96 = 3, real32 = 4, real64 = 5, bytes = 6, fixed = 7 };

/// A SchemaElement of the footer; a field that is absent is -1.
struct ParquetElement {
    std::string name;
    int64_t type = -1;
    int64_t repetition = -1;  ///< 0 required, 1 optional, 2 repeated
    int64_t children = 0;
    int64_t converted = -1;     ///< ConvertedType
    int64_t logical = -1;       ///< which LogicalType
    bool unsigned_int = false;  ///< LogicalType INTEGER with isSigned = false
};

/// A column that holds values.
struct ParquetLeaf {
    std::string path;  ///< "messages.list.element.role"
    ParquetType type = ParquetType::bytes;
    bool unsigned_int = false;
    int definition = 0, repetition = 0;  ///< largest levels; a value is there at the largest definition level
};

struct ParquetField {
    enum class Kind { leaf, record, list };
    Kind kind = Kind::leaf;
    std::string name;
    int present = 0;                          ///< definition level from which on it is not null
    int filled = 0;                           ///< list: definition level from which on it has elements
    int repeats = 0;                          ///< list: repetition level of its second and later elements
    std::vector<ParquetField> children = {};  ///< record: its fields; list: its element
    size_t leaves_begin = 0, leaves_end = 0;  ///< the leaves below it
};

struct ParquetSchema {
    ParquetField root;
    std::vector<ParquetLeaf> leaves;
};

/// Builds the tree from the elements, in depth-first order. Lists are recognised by the rules of parquet-format's
/// LogicalTypes.md, the old forms with two levels included. Throws Exit::data "where: ..." for what is damaged, and for
/// a column that JSON rows cannot hold: maps, decimals, binary values, INT96.
ParquetSchema parquet_schema(const std::vector<ParquetElement>& elements, const std::string& where);

}  // namespace colonnade
