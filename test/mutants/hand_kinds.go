package main

// kindMutants run programs that are not ended, believe what they say, and let secrets out.
func kindMutants(add adder) {
	const (
		resource = "hooks/exec/resource.go"
		webhook  = "hooks/webhook/config.go"
	)
	add("session-lives-on", "what a program has started runs on when the program is cancelled",
		replace("hooks/command/process.go", "if !stays {\n\t\terr = errors.Join(err, endSession(cmd.Process.Pid))", "if false {\n\t\terr = errors.Join(err, endSession(cmd.Process.Pid))"))
	add("exec-believed", "a program that says it has promoted is believed",
		replace(resource, "return r.await(ctx, p, want)", "return nil"))
	add("exec-without-permit", "a program promotes though the permit has ended",
		replace(resource, "hooks.MarkNoReturn(ctx, \"promote\")", "hooks.Mark(ctx, \"promote\")"))
	add("systemd-job-not-awaited", "a unit counts as started when that was asked for",
		replace("hooks/systemd/bus.go", "result, err := b.await(ctx, l, a, job, done)", "result, err := \"done\", error(nil)\n\t_ = job"))
	add("token-in-the-clear", "a token is sent without TLS",
		replace(webhook, "!loopback(u.Hostname()):", "false:"))
	add("any-certificate", "a web server need not show whose it is",
		replace(webhook, "MinVersion: tls.VersionTLS12}", "MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}"))
}
