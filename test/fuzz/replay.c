/*
 * replay.c
 *	  Runs a fuzz target on all files of some directories, without libFuzzer.
 *
 * Works with any compiler.  Each directory is one test.  The name of each input
 * is printed first, so the last one is that for which a property does not hold.
 */
#include "postgres_fe.h"

#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

#include "tap.h"

/* The memory has the size of the input, so that a sanitizer sees its end. */
static void
replay_file(const char *path)
{
	FILE	   *file = fopen(path, "rb");
	struct stat status;
	uint8_t    *data;

	if (file == NULL || fstat(fileno(file), &status) != 0 ||
		(data = malloc(status.st_size)) == NULL ||
		fread(data, 1, status.st_size, file) != (size_t) status.st_size)
	{
		perror(path);
		exit(2);
	}
	fclose(file);
	printf("# %s\n", path);
	LLVMFuzzerTestOneInput(data, status.st_size);
	free(data);
}

int
main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
	{
		DIR		   *directory = opendir(argv[i]);
		struct dirent *entry;
		int			count = 0;

		while (directory && (entry = readdir(directory)) != NULL)
		{
			if (entry->d_name[0] == '.')
				continue;
			replay_file(psprintf("%s/%s", argv[i], entry->d_name));
			count++;
		}
		tap_ok(count > 0, "%s: %d inputs", argv[i], count);
	}
	return tap_done();
}
