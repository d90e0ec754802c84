#include <algorithm>

#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/json_keys.h"
#include "train/config/porter.h"

namespace colonnade {
namespace {

ConfigNode* entry_of(ConfigNode& map, const std::string& key) {
    for (ConfigNode& entry : map.children)
        if (entry.key == key && entry.kind != ConfigNode::Kind::null) return &entry;
    return nullptr;
}

void drop(ConfigNode& map, const std::string& key) {
    std::erase_if(map.children, [&](const ConfigNode& entry) { return entry.key == key; });
}

void put(ConfigNode& map, const std::string& key, ConfigNode value, const ConfigNode& from) {
    drop(map, key);
    value.key = key;
    value.key_where = from.key_where;
    map.children.push_back(std::move(value));
}

/// Adds {ours: theirs} to `columns`, unless they are the same or the user has named it.
void add_column(ConfigNode& item, const std::string& ours, const ConfigNode& theirs) {
    if (ours == theirs.text) return;
    if (!entry_of(item, "columns")) put(item, "columns", Porter::map({}, theirs), theirs);
    ConfigNode& columns = *entry_of(item, "columns");
    if (!entry_of(columns, ours)) put(columns, ours, Porter::scalar(theirs.text, theirs), theirs);
}

/// Axolotl's names of row formats. What they render with, their chat_template says.
std::string our_type(const std::string& type) {
    static const std::map<std::string, std::string> types = {
        {"chat_template", "messages"}, {"completion", "text"}, {"pretrain", "text"}, {"sharegpt", "sharegpt"}};
    if (const auto found = types.find(type); found != types.end()) return found->second;
    if (type.starts_with("axolotl.integrations.kd.chat_template")) return "messages";
    for (const char* preferences :
         {"chatml.", "llama3.", "zephyr.", "chat_template.", "bradley_terry.", "user_defined."})
        if (type.starts_with(preferences)) return "auto";  // the rows show which of the preference formats it is
    return type;
}

/// The name of a field, as Axolotl gives it: field_messages, message_field_role, field_chosen, ...
bool port_field(ConfigNode& item, const ConfigNode& field) {
    for (const char* prefix : {"message_field_", "field_"})
        if (field.key.starts_with(prefix))
            return add_column(item, field.key.substr(std::string(prefix).size()), field), true;
    if (field.key == "logprobs_field") return add_column(item, "logprobs", field), true;
    if (field.key == "field") return add_column(item, "text", field), true;
    return false;
}

/// LLaMA-Factory's names of columns and ours.
const std::map<std::string, std::string> factory_columns = {
    {"prompt", "instruction"}, {"query", "input"},       {"response", "output"},
    {"history", "history"},    {"system", "system"},     {"messages", "messages"},
    {"chosen", "chosen"},      {"rejected", "rejected"}, {"tools", "tools"}};

/// An entry of dataset_info.json as an item of `datasets`.
ConfigNode item_of_entry(const std::string& name, const Json& entry, const std::string& folder, const ConfigNode& from,
                         Porter& porter) {
    // Values of another type count as absent.
    const auto text_in = [](const Json& map, const char* key, const char* otherwise = "") -> std::string {
        return map.contains(key) && map[key].is_string() ? map[key].get<std::string>() : otherwise;
    };
    const auto map_in = [&](const char* key) {
        return entry.contains(key) && entry[key].is_object() ? entry[key] : Json::object();
    };
    const std::string file = text_in(entry, "file_name"), split = text_in(entry, "split"),
                      repository = text_in(entry, "hf_hub_url"),
                      subset = text_in(entry, entry.contains("subset") ? "subset" : "folder");
    if (file.empty() && repository.empty())
        porter.refuse(
            from,
            fmt::format(
                "{} in {}/dataset_info.json has neither file_name nor hf_hub_url; download its data and give the file",
                name, folder));
    const ConfigNode* const stage = porter.find("stage");
    const Json tags = map_in("tags"), columns = map_in("columns");
    const std::string role = text_in(tags, "role_tag", "from"), content = text_in(tags, "content_tag", "value");
    const bool texts = stage && stage->text == "pt", plain = role == "role",
               chats = text_in(entry, "formatting") == "sharegpt",
               ranking = entry.contains("ranking") && entry["ranking"] == true;

    ConfigNode item = Porter::map({}, from);
    const std::string path = file.empty() ? repository + (subset.empty() ? "" : "/" + subset) : folder + "/" + file;
    put(item, "path", Porter::scalar(path, from), from);
    const char* const type = texts ? "text" : !chats ? "alpaca" : plain ? "messages" : "sharegpt";
    if (!ranking) put(item, "type", Porter::scalar(type, from), from);
    const auto column = [&](const std::string& ours, const std::string& theirs) {
        ConfigNode node = Porter::scalar(theirs, from);
        node.key_where = from.key_where;
        add_column(item, ours, node);
    };
    for (const auto& [theirs, key] : columns.items()) {
        const auto ours = factory_columns.find(theirs);
        if (ours == factory_columns.end() || !key.is_string()) continue;
        column(texts                                  ? "text"
               : ours->second == "messages" && !plain ? "conversations"
                                                      : ours->second,
               key.get<std::string>());
    }
    if (!plain) column("from", role), column("value", content);
    if (!split.empty()) put(item, "split", Porter::scalar(split, from), from);
    if (entry.contains("num_samples") && entry["num_samples"].is_number_integer())
        put(item, "max_samples", Porter::scalar(entry["num_samples"].dump(), from), from);
    return item;
}

}  // namespace

void port_dataset(ConfigNode& item, Porter& porter) {
    const std::vector<ConfigNode> given = item.children;
    for (const ConfigNode& entry : given) {
        const std::string& key = entry.key;
        if (entry.kind == ConfigNode::Kind::null) continue;
        if (key == "type" && entry.kind == ConfigNode::Kind::scalar) {
            if (const std::string type = our_type(entry.text); type != entry.text) {
                porter.note(entry, fmt::format("{} is read as {}", entry.text, type));
                put(item, key, Porter::scalar(type, entry), entry);
            }
        } else if (key == "data_files") {
            const bool one = entry.kind == ConfigNode::Kind::sequence && entry.children.size() == 1;
            const ConfigNode& file = one ? entry.children[0] : entry;
            if (file.kind != ConfigNode::Kind::scalar)
                porter.refuse(entry, "give each file an item of its own, or a glob as the path");
            const ConfigNode* const path = entry_of(item, "path");  // a repository, or the kind of the files: json
            const bool of_hub = path && path->text.find('/') != path->text.npos && !path_exists(path->text);
            put(item, "path", Porter::scalar(of_hub ? path->text + "/" + file.text : file.text, entry), entry);
            drop(item, key);
        } else if (key == "revision") {
            const ConfigNode* const path = entry_of(item, "path");
            if (path && entry.text != "main" && !path_exists(path->text)) {
                const size_t name = path->text.find('/'), inside = path->text.find('/', name + 1);
                std::string with = path->text;
                with.insert(std::min(name == with.npos ? name : inside, with.size()), "@" + entry.text);
                put(item, "path", Porter::scalar(with, *path), *path);
            } else
                porter.idle(entry);
            drop(item, key);
        } else if (key == "message_property_mappings") {
            for (const ConfigNode& mapping : entry.children) add_column(item, mapping.key, mapping);
            drop(item, key);
        } else if (port_field(item, entry)) {
            drop(item, key);
        } else if (key == "temperature") {  // of a teacher
            porter.set(key, ConfigNode(entry), entry);
            drop(item, key);
        } else if (key == "train_on_eos" || key == "roles_to_train") {
            porter.set(key, ConfigNode(entry), entry);
            drop(item, key);
        } else if (key == "ds_type" || key == "roles" || key == "trust_remote_code" || key == "preprocess_shards") {
            porter.idle(entry);
            drop(item, key);
        } else if (key == "name" || key == "shards" || key == "conversation" || key == "drop_system_message") {
            if (is_off(entry))
                porter.idle(entry, "off");
            else
                porter.refuse(entry, key == "shards" ? "max_samples reads the first rows only"
                                     : key == "name" ? "give the files of that part of the data as the path"
                                                     : "remove it");
            drop(item, key);
        }
    }
}

void port_named_datasets(const ConfigNode& names, const std::string& folder, const std::string& key, Porter& porter) {
    const std::string registry = folder + "/dataset_info.json";
    Json entries = Json::object();
    if (path_exists(registry)) entries = parse_json(read_file(registry, limits::json_bytes), registry);
    std::vector<ConfigNode> items;
    for (size_t begin = 0, end = 0; end != names.text.npos; begin = end + 1) {
        end = names.text.find(',', begin);
        std::string name = names.text.substr(begin, end == names.text.npos ? end : end - begin);
        name.erase(0, name.find_first_not_of(' '));
        name.erase(name.find_last_not_of(' ') + 1);
        const bool of_hub = std::ranges::count(name, '/') == 1 && name.front() != '/' && name.front() != '.';
        if (entries.contains(name) && entries[name].is_object()) {
            items.push_back(item_of_entry(name, entries[name], folder, names, porter));
        } else if (path_exists(name) || path_exists(folder + "/" + name) || of_hub) {
            const bool inside = !path_exists(name) && path_exists(folder + "/" + name);
            items.push_back(Porter::map({{"path", Porter::scalar(inside ? folder + "/" + name : name, names)}}, names));
        } else {
            porter.refuse(
                names, fmt::format("'{}' is neither a file nor an entry of {}; give datasets: [{{path: train.jsonl}}]",
                                   name, registry));
            return;
        }
        if (const ConfigNode* const most = porter.find("max_samples"))
            put(items.back(), "max_samples", Porter::scalar(most->text, *most), *most);
    }
    porter.set(key, Porter::list(std::move(items), names), names);
}

}  // namespace colonnade
