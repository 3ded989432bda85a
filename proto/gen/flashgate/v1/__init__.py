"""Wire types of flashgate, generated from `proto/flashgate` by `ops/protogen`. Do not edit."""
