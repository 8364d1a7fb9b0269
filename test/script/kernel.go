package script

// KernelOptions say how a scenario is played on the kernel.
type KernelOptions struct{ Carpd, Pcap string }

func OnKernel(f *File, o KernelOptions) Result { return Result{Skipped: "x"} }
