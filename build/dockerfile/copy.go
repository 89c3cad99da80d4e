package dockerfile

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/lull-dev/lull/build/archive"
	"github.com/lull-dev/lull/build/image"
)

// copy carries out a COPY instruction.
func (b *builder) copy(ctx context.Context, s *stage, c *instructions.CopyCommand) error {
	if c.Parents || len(c.ExcludePatterns) > 0 {
		return invalid("name the files one by one, or write a .dockerignore", "COPY --parents and --exclude are not supported")
	}
	from, ignored := b.context, b.ignored
	if c.From != "" {
		other, err := b.source(ctx, s, c.From)
		if err != nil {
			return err
		}
		if from, err = image.OpenTree(other.dir, b.Limits); err != nil {
			return err
		}
		defer from.Close()
		ignored = nil
	}
	return b.transfer(ctx, s, &copier{from: from, ignored: ignored}, c.SourcesAndDest, c.Chown, c.Chmod)
}

// source is the stage or image that COPY --from names.
func (b *builder) source(ctx context.Context, s *stage, name string) (*stage, error) {
	if n, ok := b.find(name, s.number); ok {
		return b.stage(ctx, n)
	}
	if strings.EqualFold(name, b.stages[s.number].Name) {
		return nil, invalid("", "--from=%s names the stage that it is in", name)
	}
	if other := b.images[name]; other != nil {
		return other, nil
	}
	other := &stage{}
	if err := b.fetch(ctx, other, name); err != nil {
		return nil, err
	}
	b.images[name] = other
	return other, nil
}

// add carries out an ADD instruction: COPY, but archives are unpacked.
func (b *builder) add(ctx context.Context, s *stage, c *instructions.AddCommand) error {
	if len(c.ExcludePatterns) > 0 {
		return invalid("write a .dockerignore", "ADD --exclude is not supported")
	}
	for _, source := range c.SourcePaths {
		if strings.Contains(source, "://") || strings.HasPrefix(source, "git@") {
			// The node's own network is none of a Dockerfile's business; a step's sandbox has one of its own.
			return invalid("fetch it in a RUN step, with curl or wget", "ADD of %s: only files of the app can be added", source)
		}
	}
	unpack := c.Unpack == nil || *c.Unpack
	return b.transfer(ctx, s, &copier{from: b.context, ignored: b.ignored, unpack: unpack}, c.SourcesAndDest, c.Chown, c.Chmod)
}

// transfer copies what an instruction names into the stage.
func (b *builder) transfer(ctx context.Context, s *stage, c *copier, names instructions.SourcesAndDest, chown, chmod string) (err error) {
	if c.owner, err = s.owner(chown); err != nil {
		return err
	}
	if c.owner == nil && c.ignored != nil {
		c.owner = &ownership{} // the app's files come from somebody else's machine
	}
	if chmod != "" {
		mode, err := strconv.ParseUint(chmod, 8, 12)
		if err != nil {
			return invalid("write it as in --chmod=755", "--chmod=%s is not an octal mode", chmod)
		}
		c.mode = &mode
	}
	tree, done, err := b.tree(s.dir)
	if err != nil {
		return err
	}
	c.ctx, c.to = ctx, tree
	dest := s.absolute(names.DestPath)
	isDir := strings.HasSuffix(names.DestPath, "/") || path.Base(names.DestPath) == "." || path.Base(names.DestPath) == ".."
	return errors.Join(c.all(names, dest, isDir, s.vars()), done())
}

type ownership struct{ uid, gid int }

// owner reads --chown=user:group; nil if it is not there.
func (s *stage) owner(text string) (*ownership, error) {
	if text == "" {
		return nil, nil
	}
	user, err := image.LookUp(s.dir, text)
	if err != nil {
		return nil, err
	}
	o := &ownership{user.UID, user.GID}
	if uid, err := strconv.Atoi(text); err == nil {
		o.gid = uid // a number alone is both
	}
	return o, nil
}

// copier copies files into a stage.
type copier struct {
	ctx     context.Context
	from    *image.Tree
	ignored *archive.DockerIgnore // nil: nothing
	unpack  bool                  // archives
	to      *image.Tree
	owner   *ownership // nil: the files' own
	mode    *uint64    // nil: the files' own
}

func (c *copier) all(names instructions.SourcesAndDest, dest string, isDir bool, vars variables) error {
	var sources []string
	for _, pattern := range names.SourcePaths {
		found, err := c.match(pattern)
		if err != nil {
			return err
		}
		sources = append(sources, found...)
	}
	isDir = isDir || c.to.IsDir(dest)
	if len(sources)+len(names.SourceContents) > 1 && !isDir {
		return invalid("end it with a slash", "several files are copied to %q, which is not a directory", names.DestPath)
	}
	for _, source := range sources {
		if err := c.source(source, dest, isDir); err != nil {
			return err
		}
	}
	for _, text := range names.SourceContents {
		data, target := text.Data, dest
		if text.Expand {
			var err error
			if data, err = vars.expandRaw(data); err != nil {
				return err
			}
		}
		if isDir {
			target = path.Join(dest, path.Base(text.Path))
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}
		if err := c.put(target, header, strings.NewReader(data)); err != nil {
			return err
		}
	}
	return nil
}

// match returns the files that a pattern fits, as names from the top. A name without special characters must be there.
func (c *copier) match(pattern string) ([]string, error) {
	clean := path.Join("/", pattern)[1:]
	names := []string{"."}
	for part := range strings.SplitSeq(clean, "/") {
		var next []string
		for _, name := range names {
			if !strings.ContainsAny(part, `*?[\`) {
				next = append(next, path.Join(name, part))
				continue
			}
			fits, err := c.fitting(name, part)
			if err != nil {
				return nil, err
			}
			next = append(next, fits...)
		}
		names = next
	}
	var found []string
	for _, name := range names {
		real, info, err := c.from.Find(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && c.leftOut(real, info.IsDir()) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, name)
	}
	if len(found) == 0 {
		hint := "the path begins at the top of the app's directory, and what .dockerignore or .lullignore names is not there"
		if c.ignored == nil {
			hint = "the path begins at the root of the other stage"
		}
		return nil, invalid(hint, "there is no %q to copy", pattern)
	}
	slices.Sort(found)
	return found, nil
}

// fitting lists what in a directory fits a pattern.
func (c *copier) fitting(dir, pattern string) ([]string, error) {
	real, info, err := c.from.Find(dir)
	if err != nil || !info.IsDir() {
		return nil, nil
	}
	entries, err := fs.ReadDir(c.from.Root().FS(), real)
	if err != nil {
		return nil, fmt.Errorf("copy: %w", err)
	}
	var fits []string
	for _, entry := range entries {
		ok, err := path.Match(pattern, entry.Name())
		if err != nil {
			return nil, invalid("", "%q is not a pattern", pattern)
		}
		if ok {
			fits = append(fits, path.Join(dir, entry.Name()))
		}
	}
	return fits, nil
}

// leftOut reports whether the ignore file leaves a file out, by itself or with a directory that it is in.
func (c *copier) leftOut(real string, isDir bool) bool {
	if c.ignored == nil || real == "." {
		return false
	}
	ignored, descend := false, false
	for i := range len(real) {
		if real[i] == '/' {
			ignored, _ = c.ignored.Match(real[:i], true, ignored)
		}
	}
	ignored, descend = c.ignored.Match(real, isDir, ignored)
	return ignored && !descend
}

// source copies one file, or what is in a directory.
func (c *copier) source(name, dest string, isDir bool) error {
	real, info, err := c.from.Find(name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if !c.to.IsDir(dest) {
			if err := c.file(real, dest, info); err != nil {
				return err
			}
		}
		return c.into(real, dest)
	}
	if c.unpack {
		unpacked, err := c.unpackTo(real, dest)
		if unpacked || err != nil {
			return err
		}
	}
	if isDir {
		dest = path.Join(dest, path.Base(name))
	}
	return c.file(real, dest, info)
}

// into copies what is in a directory.
func (c *copier) into(real, dest string) error { return c.children(real, dest, c.inIgnored(real)) }

// inIgnored reports whether a directory is left out, though something in it may not be.
func (c *copier) inIgnored(real string) (ignored bool) {
	if c.ignored == nil || real == "." {
		return false
	}
	for i := range len(real) + 1 {
		if i == len(real) || real[i] == '/' {
			ignored, _ = c.ignored.Match(real[:i], true, ignored)
		}
	}
	return ignored
}

func (c *copier) children(real, dest string, below bool) error {
	entries, err := fs.ReadDir(c.from.Root().FS(), real)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	for _, entry := range entries {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		name, target := path.Join(real, entry.Name()), path.Join(dest, entry.Name())
		ignored, descend := false, false
		if c.ignored != nil {
			ignored, descend = c.ignored.Match(name, entry.IsDir(), below)
		}
		if ignored && !descend {
			continue
		}
		if !ignored {
			info, err := entry.Info()
			if err != nil {
				return fmt.Errorf("copy: %w", err)
			}
			if err := c.file(name, target, info); err != nil {
				return err
			}
		}
		if entry.IsDir() {
			if err := c.children(name, target, ignored); err != nil {
				return err
			}
		}
	}
	return nil
}

// file copies one file, directory without what is in it, or link.
func (c *copier) file(real, dest string, info fs.FileInfo) error {
	header, err := c.from.Header(real, info)
	if err != nil || header == nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return c.put(dest, header, nil)
	}
	file, err := c.from.Root().Open(real)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer file.Close()
	return c.put(dest, header, file)
}

// put writes one file with the owner and mode that the instruction gives.
func (c *copier) put(dest string, header *tar.Header, content io.Reader) error {
	if c.owner != nil {
		header.Uid, header.Gid = c.owner.uid, c.owner.gid
	}
	if c.mode != nil {
		header.Mode = int64(*c.mode)
	}
	if content != nil {
		content = io.LimitReader(reader{c.ctx, content}, header.Size)
	}
	return c.to.Put(dest, header, content)
}

// unpackTo unpacks a file into a directory if it is a tar archive.
func (c *copier) unpackTo(real, dest string) (unpacked bool, err error) {
	file, err := c.from.Root().Open(real)
	if err != nil {
		return false, fmt.Errorf("add: %w", err)
	}
	defer file.Close()
	plain, done, err := archive.Decompress(file)
	if err != nil {
		return false, nil // it only begins like a compressed file
	}
	defer done()
	in := tar.NewReader(reader{c.ctx, plain})
	header, err := in.Next()
	if err != nil {
		return false, nil
	}
	for ; err == nil; header, err = in.Next() {
		if err := c.entry(dest, header, in); err != nil {
			return true, err
		}
	}
	if !errors.Is(err, io.EOF) {
		return true, invalid("", "the archive %s is damaged: %s", real, err)
	}
	return true, nil
}

func (c *copier) entry(dest string, header *tar.Header, content io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := image.Below(dest, header.Name)
	if err != nil || name == dest {
		return err
	}
	entry := *header
	if header.Typeflag == tar.TypeLink {
		if entry.Linkname, err = image.Below(dest, header.Linkname); err != nil {
			return err
		}
	}
	return c.to.Put(name, &entry, content) // owners and modes are the archive's
}

// reader stops when its context is done.
type reader struct {
	ctx context.Context
	in  io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.in.Read(p)
}
