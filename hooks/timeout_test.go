package hooks

import (
	"testing"
	"time"
)

func TestTimeoutsOfAKindAreBoundedAndHaveADefault(t *testing.T) {
	for _, c := range []struct {
		given, want time.Duration
		refused     bool
	}{
		{0, 7 * time.Second, false}, {time.Nanosecond, time.Nanosecond, false}, {MaxTimeout, MaxTimeout, false},
		{MaxTimeout + 1, 0, true}, {-1, 0, true},
	} {
		d := c.given
		switch err := FillTimeout("role_timeout", &d, 7*time.Second); {
		case (err != nil) != c.refused:
			t.Errorf("%v: %v", c.given, err)
		case err == nil && d != c.want:
			t.Errorf("%v becomes %v, want %v", c.given, d, c.want)
		case err != nil && err.Error() != "role_timeout "+c.given.String()+": use more than 0 and at most 1h0m0s":
			t.Errorf("%v: %v", c.given, err)
		}
	}
}
