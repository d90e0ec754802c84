#pragma once
// Version of Colonnade. CMakeLists.txt reads it from here.

#define COLONNADE_VERSION "0.1.0"
#define COLONNADE_VERSION_MAJOR 0
#define COLONNADE_VERSION_MINOR 1
#define COLONNADE_VERSION_PATCH 0
