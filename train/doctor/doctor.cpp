#include "train/doctor/doctor.h"

#include <fmt/format.h>

#include <algorithm>

namespace colonnade {
namespace {

const char* name_of(Health health) {
    switch (health) {
        case Health::good:
            return "ok";
        case Health::note:
            return "note";
        case Health::bad:
            return "WRONG";
    }
    return "";
}

void append(std::vector<Item>& all, std::vector<Item> more) {
    std::ranges::move(more, std::back_inserter(all));
}

}  // namespace

std::vector<Item> examine(const DoctorOptions& options) {
    std::vector<Item> items = machine_items();
    append(items, gpu_items(options.driver));
    append(items, library_items(options.driver.gpus.size()));
    append(items, storage_items(options));
    append(items, hub_items());
    return items;
}

std::string text_of(const std::vector<Item>& items) {
    size_t width = 0;
    for (const Item& item : items) width = std::max(width, item.name.size());
    std::string text;
    for (const Item& item : items) {
        text += fmt::format("{:<5}  {:<{}}  {}\n", name_of(item.health), item.name, width, item.found);
        if (!item.remedy.empty()) text += fmt::format("{:>{}}{}\n", "", width + 9, item.remedy);
    }
    return text;
}

Json json_of(const std::vector<Item>& items) {
    Json list = Json::array();
    for (const Item& item : items)
        list.push_back(
            {{"name", item.name}, {"found", item.found}, {"verdict", name_of(item.health)}, {"remedy", item.remedy}});
    return {{"works", all_work(items)}, {"items", list}};
}

bool all_work(const std::vector<Item>& items) {
    return std::ranges::none_of(items, [](const Item& item) { return item.health == Health::bad; });
}

}  // namespace colonnade
