package lab

import "os"

// Enter is Main for a command that is no test: call it before anything else that
// can be seen. Where this process may not make network namespaces it runs the
// program again as root of new user, network and mount namespaces; ran is true
// then, and code is that run's exit code. Where that is refused too, ran is false
// and New will skip.
func Enter() (code int, ran bool) {
	if os.Getenv(inside) != "" || permitted() {
		return 0, false
	}
	code, err := again()
	return code, err == nil
}
