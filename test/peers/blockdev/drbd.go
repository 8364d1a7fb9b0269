package blockdev

func drbdadm(dir string, args []string) int   { return 1 }
func drbdsetup(dir string, args []string) int { return 1 }
func (d *daemon) drbd(args []string) reply    { return reply{} }
func (d *daemon) seek()                       {}
