package blockdev

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// attach makes a loop device over a file. It is detached by itself when nobody has it
// open or mounted any more.
func attach(fd int) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 64 { // others look for one too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := openDevice(fmt.Sprintf("/dev/loop%d", n))
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(fd), Size: 512}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("set up %s: %w", dev.Name(), err)
		}
	}
	return nil, errors.New("no loop device stays free")
}

// openDevice opens a device that devtmpfs may be about to make.
func openDevice(path string) (*os.File, error) {
	for late := time.Now().Add(2 * time.Second); ; {
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil || !errors.Is(err, os.ErrNotExist) || time.Now().After(late) {
			return dev, err
		}
		<-time.After(10 * time.Millisecond)
	}
}

// inUse reports whether a device is mounted or otherwise claimed.
func inUse(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	_ = unix.Close(fd)
	return false
}
