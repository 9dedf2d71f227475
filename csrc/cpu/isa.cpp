// Joins the kernel tables of one instruction-set level. Compiled once per level, constants only.
#include "dispatch.h"

#define SC_TEXT_OF(token) #token
#define SC_TEXT(macro) SC_TEXT_OF(macro)

namespace spatialconv {
namespace SPATIALCONV_ISA {

extern const KernelTable avg_pool_table;
extern const KernelTable depthwise_table;
extern const KernelTable direct_table;
extern const KernelTable dots_table;
extern const KernelTable gemm_table;
extern const KernelTable inner_table;
extern const KernelTable local_table;
extern const KernelTable max_pool_table;
extern const KernelTable winograd_table;

int64_t multiply_adds(DType dtype, int64_t rounds);

constexpr const KernelTable* kTables[] = {
    &avg_pool_table, &depthwise_table, &direct_table,   &dots_table,     &gemm_table,
    &inner_table,    &local_table,     &max_pool_table, &winograd_table,
};

extern const IsaLevel isa_level;
const IsaLevel isa_level = {SC_TEXT(SPATIALCONV_ISA), kTables, sizeof kTables / sizeof kTables[0], multiply_adds};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv
