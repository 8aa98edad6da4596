"""QUICK: XLA_FLAGS of programs that run once, or a few times: optimising them costs more than it
saves.
"""

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
