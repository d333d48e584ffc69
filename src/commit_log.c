/*
 * commit_log.c
 *	  Messages for the server log that are written when the transaction
 *	  commits.
 */
#include "postgres.h"

#include "commit_log.h"

#include "access/xact.h"
#include "utils/memutils.h"

/* Allocated in TopTransactionContext; newest first */
typedef struct Line
{
	SubTransactionId subtransaction;
	char	   *message;
	struct Line *older;
} Line;

static Line *lines;

/* Recurse to write the oldest line first. */
static void
write_lines(const Line *line)
{
	if (line == NULL)
		return;
	write_lines(line->older);
	ereport(LOG_SERVER_ONLY,
			(errmsg_internal("%s", line->message),
			 errhidestmt(true),
			 errhidecontext(true)));
}

static void
end_transaction(XactEvent event, pg_attribute_unused() void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		write_lines(lines);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		lines = NULL;
}

static void
drop_lines(SubTransactionId subtransaction)
{
	Line	  **at = &lines;

	while (*at)
	{
		if ((*at)->subtransaction == subtransaction)
			*at = (*at)->older;
		else
			at = &(*at)->older;
	}
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId subtransaction,
				   SubTransactionId parent, pg_attribute_unused() void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		drop_lines(subtransaction);
	if (event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	for (Line *line = lines; line; line = line->older)
	{
		if (line->subtransaction == subtransaction)
			line->subtransaction = parent;
	}
}

void
commit_log(const char *message)
{
	static bool registered = false;
	Line	   *line = MemoryContextAlloc(TopTransactionContext, sizeof(Line));

	if (!registered)
	{
		RegisterXactCallback(end_transaction, NULL);
		RegisterSubXactCallback(end_subtransaction, NULL);
		registered = true;
	}
	line->subtransaction = GetCurrentSubTransactionId();
	line->message = MemoryContextStrdup(TopTransactionContext, message);
	line->older = lines;
	lines = line;
}
