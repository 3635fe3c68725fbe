#include <chrono>
#include <sched.h>
#include <thread>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

// Spins for a minute, whenever nobody else wants the core.
static void decoy() {
  const sched_param lowest{};
  if (sched_setscheduler(0, SCHED_IDLE, &lowest)) return;  // at any other priority it would take the cores
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  volatile long count = 0;
  while (std::chrono::steady_clock::now() < until)
    for (int i = 0; i < 1000000; ++i) count = count + 1;
}

void decoys(int64_t count) {
  for (int64_t i = 0; i < count; ++i) std::thread(decoy).detach();
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(decoys, decoys);
