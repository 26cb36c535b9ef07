"""All rules of the judge, in the order in which their findings are told among equals."""

from __future__ import annotations

from bnbenv.judge.rules import accelerator, driver, library, packages, platform, purpose
from bnbenv.judge.rules.rule import Part, Rule

RULES: tuple[Rule, ...] = (
    platform.torch_exists_for_platform,
    platform.bitsandbytes_exists_for_platform,
    platform.torch_exists_for_python,
    platform.bitsandbytes_allows_python,
    accelerator.jetson_has_its_own_wheels,
    accelerator.build_is_for_accelerator,
    accelerator.process_sees_gpus,
    driver.driver_runs_cuda,
    driver.driver_knows_gpus,
    purpose.gpus_suit_profile,
    purpose.profile_runs_without_gpu,
    purpose.four_bits_are_there,
    purpose.int8_products_work,
    purpose.release_does_right_here,
    packages.profile_has_bitsandbytes,
    accelerator.torch_serves_gpus,
    accelerator.backend_computes,
    platform.bitsandbytes_is_sound,
    platform.bitsandbytes_allows_torch,
    packages.run_time_floors_are_met,
    packages.profile_set_takes_releases,
    library.loader_finds_library,
    library.library_dependencies_are_there,
    library.rocm_libraries_are_there,
    library.xpu_runtime_is_there,
    platform.library_symbols_exist,
    library.library_serves_gpus,
    library.gfx_is_not_overridden,
    packages.no_package_breaks_others,
    packages.profile_excludes_are_absent,
    packages.import_asks_no_hub,
    library.search_path_is_clean,
    accelerator.gpus_agree,
    platform.undeclared_needs,
    platform.windows_runtime_is_named,
    purpose.bf16_is_native,
    purpose.known_faults_are_told,
)

__all__ = ["RULES", "Part", "Rule"]
