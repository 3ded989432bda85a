#include "thread_pool.h"

namespace flashgate {
namespace {

// How long a thread looks before it sleeps: a decode step forks every few tens of microseconds, and a futex
// wake-up costs about as much as the work of a small kernel.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

void ThreadPool::resize(size_t num_threads) {
    std::lock_guard<std::mutex> turn(caller_);
    if (num_threads == size()) return;
    stop();
    num_threads_ = num_threads;
}

void ThreadPool::start() {
    stopping_ = false;
    while (workers_.size() + 1 < size()) workers_.emplace_back([this] { work(); });
}

void ThreadPool::stop() {
    {
        std::lock_guard<std::mutex> lock(sleep_);
        stopping_ = true;
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
    round_ = 0;
}

void ThreadPool::run_tasks(size_t num_tasks, Call call, void* task) {
    if (num_tasks <= 1 || size() == 1) {
        for (size_t i = 0; i < num_tasks; ++i) call(task, i);
        return;
    }
    std::lock_guard<std::mutex> turn(caller_);
    if (workers_.empty()) start();
    call_ = call;
    task_ = task;
    num_tasks_ = num_tasks;
    next_.store(0, std::memory_order_relaxed);
    running_.store(workers_.size(), std::memory_order_relaxed);
    {
        std::lock_guard<std::mutex> lock(sleep_);
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_tasks();
    for (int i = 0; i < kSpins; ++i) {
        if (running_.load(std::memory_order_acquire) == 0) return;
        relax();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    finished_.wait(lock, [this] { return running_.load(std::memory_order_acquire) == 0; });
}

void ThreadPool::take_tasks() {
    for (;;) {
        const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
        if (i >= num_tasks_) return;
        call_(task_, i);
    }
}

uint64_t ThreadPool::wait_for_round(uint64_t seen) {
    for (int i = 0; i < kSpins; ++i) {
        const uint64_t now = round_.load(std::memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    wake_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
    return round_.load(std::memory_order_acquire);
}

void ThreadPool::work() {
    uint64_t seen = 0;
    for (;;) {
        seen = wait_for_round(seen);
        if (stopping_) return;
        take_tasks();
        if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            std::lock_guard<std::mutex> lock(sleep_);
            finished_.notify_one();
        }
    }
}

}  // namespace flashgate
