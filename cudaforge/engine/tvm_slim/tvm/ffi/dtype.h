#include <cudaforge_slim/ffi.h>
