package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
)

// surveyed is how much of a packed upload is looked at before anything of it is written. Hundreds of thousands of tiny
// files fit in, and making each of them is what takes long: the kernel needs some 50 µs for a new name.
const surveyed = 16 << 20

// survey refuses an archive whose beginning is over the limits already. It returns the whole of it, to be read again from
// its start. What else may be wrong with it is for those to say who unpack it.
func survey(r io.Reader, limits Limits) (io.Reader, error) {
	source := &counter{r: r}
	var head bytes.Buffer
	packed := &counter{r: io.TeeReader(io.LimitReader(source, surveyed), &head)}
	err := measure(packed, limits)
	switch {
	case source.err != nil:
		return nil, fmt.Errorf("unpack: %w", source.err)
	case err != nil:
		return nil, err
	}
	return io.MultiReader(&head, source), nil
}

// measure counts what an archive holds, as far as it can be read.
func measure(packed *counter, limits Limits) error {
	plain, closePlain, err := Decompress(packed)
	if err != nil {
		return nil
	}
	defer closePlain()
	count := tally{limits: limits}
	in := tar.NewReader(&ratio{r: plain, packed: packed, limit: int64(limits.Ratio)})
	for {
		header, err := in.Next()
		switch {
		case err != nil:
			return nil
		case header.Typeflag == tar.TypeXGlobalHeader:
			continue
		}
		if err := count.entry(); err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeGNUSparse {
			continue
		}
		if err := count.file(header.Size); err != nil {
			return err
		}
	}
}
