// Joins the tables in which the kernel files end: a new file is one line here.
#include "tables.h"

#define SPATIALCONV_CUDA_TABLES(_) \
  _(conv_simt_forward_table)       \
  _(conv_simt_grad_input_table)    \
  _(conv_simt_grad_weight_table)   \
  _(depthwise_forward_table)       \
  _(depthwise_grad_input_table)    \
  _(depthwise_grad_weight_table)   \
  _(max_pool_table)                \
  _(max_pool_gradient_table)       \
  _(avg_pool_table)                \
  _(conv_mma_table)                \
  _(conv_wgmma_table)

namespace spatialconv {
namespace cuda {

#define DECLARED(table) extern const Table table;
#define LISTED(table) &table,

SPATIALCONV_CUDA_TABLES(DECLARED)

const Table* const tables[] = {SPATIALCONV_CUDA_TABLES(LISTED)};
const int64_t table_count = sizeof tables / sizeof tables[0];

}  // namespace cuda
}  // namespace spatialconv
